"""Formats that sonde reads, one file each."""
