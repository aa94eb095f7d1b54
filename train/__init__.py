"""Everything needed to make a model: prepare crops, fit a CycleGAN, write the folder that the app loads."""
