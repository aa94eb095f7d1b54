"""Face translation with CycleGAN: find a face, translate it, put it back.

In short:

    from cyclegan import Translator, Zoo, load_image
    result = Translator(Zoo()).translate(load_image("me.jpg"), "glasses", "A2B")
"""

from cyclegan.errors import CycleGANError
from cyclegan.images import load_image, save_png
from cyclegan.model import CycleGAN
from cyclegan.translator import Result, Translation, Translator
from cyclegan.zoo import Zoo

__all__ = ["CycleGAN", "CycleGANError", "Result", "Translation", "Translator", "Zoo", "load_image", "save_png"]
