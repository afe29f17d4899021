"""Images from a trained generator, and latents of images."""
