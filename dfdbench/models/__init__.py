"""Video models behind one interface: adapters over diffusers folders, the path, the samplers."""
