"""Pictures made out of noise (diffusion, flow matching), for nothing, a class or a text."""
