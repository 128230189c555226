"""SLIViT: diagnose clinical features from limited 3D biomedical imaging."""

__version__ = "0.1.0"
