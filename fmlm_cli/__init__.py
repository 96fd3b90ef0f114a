"""fmlm: pre-train masked language models with fully-explored masking.

Implements Zheng et al. 2020, "Improving Self-supervised Pre-training via a Fully-Explored Masked
Language Model" (arXiv 2010.06040). The commands are thin; everything they do can be called from Python
through `fmlm_cli.recipes`.
"""

__version__ = "0.1.0"
