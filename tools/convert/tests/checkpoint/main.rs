//! Checkpoints of the hub as sources of GGUF files. tests/data/checkpoints/make.py made them.

mod hostile;
mod lora;
mod minilm;
mod mutation;
mod shapes;
mod store;
mod tokenizers;
mod values;
