//! GGUF files: what is read, what is refused and where, and that hostile bytes cost nothing.

mod alloc;
mod folder;
mod hostile;
mod models;
mod mutation;
mod recognised;
mod roundtrip;
mod sample;
mod split;
mod store;
mod writer;
