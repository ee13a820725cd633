"""The papers' tables and figures about concepts, and about latents of autoencoders."""
