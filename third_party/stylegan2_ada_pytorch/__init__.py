"""StyleGAN2-ADA in pure PyTorch."""
