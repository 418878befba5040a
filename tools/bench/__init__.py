"""Compares edged with llama.cpp's own tools on this machine: same library files, threads and client."""
