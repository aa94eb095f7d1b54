"""History of generated images shown to the discriminators (Shrivastava et al. 2017)."""

import torch
from torch import Tensor


class ImageBuffer:
    """Keeps up to ``capacity`` generated images and swaps each new one with an old one half of the time."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.images: list[Tensor] = []

    def exchange(self, fakes: Tensor, rng: torch.Generator) -> Tensor:
        """[B, 3, H, W] -> the same number of images, each new or, with probability 0.5 once full, an older one.

        Images of another size than the newest (an earlier stage) are forgotten. ``rng`` is a CPU generator.
        """
        if self.images and self.images[0].shape != fakes.shape[1:]:
            self.images.clear()
        chosen = []
        for fake in fakes.detach():
            if len(self.images) < self.capacity:
                self.images.append(fake.clone())
                chosen.append(fake)
            elif self.capacity and torch.rand((), generator=rng) < 0.5:
                slot = int(torch.randint(self.capacity, (), generator=rng))
                chosen.append(self.images[slot])
                self.images[slot] = fake.clone()
            else:
                chosen.append(fake)
        return torch.stack(chosen)

    def state_dict(self) -> dict:
        """The images kept, for the training state."""
        return {"images": list(self.images)}

    def load_state_dict(self, state: dict) -> None:
        """Take up the images of an earlier run."""
        self.images = list(state["images"])
