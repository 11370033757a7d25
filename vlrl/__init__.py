"""vlrl: train Qwen-VL-style vision-language models with RL from verifiable rewards."""

__version__ = "0.1.0"
