//! What the tests of this library share.
#![allow(dead_code, reason = "no test uses all of it")]

use std::ops::Range;
use std::path::Path;

use siskin::GgmlType;
use siskin::gguf::Builder;
use siskin_convert::{Facts, Result, Source, TensorDesc};
use siskin_quant::table::KernelTable;

/// A source in memory.
#[derive(Default)]
pub struct Memory {
    pub facts: Facts,
    pub tensors: Vec<TensorDesc>,
    pub values: Vec<Vec<f32>>,
}

/// The kernels of this machine.
pub fn table() -> KernelTable {
    KernelTable::detect().expect("a level")
}

/// Values like those of a trained matrix: most are small.
pub fn weights(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (uniform() + uniform() + uniform()) * 0.05).collect()
}

impl Memory {
    /// With the architecture `llama`.
    pub fn llama(n_layer: usize) -> Memory {
        let facts = Facts { arch: "llama".into(), n_layer, n_head: 8, n_head_kv: 2, n_expert: 0 };
        Memory { facts, ..Memory::default() }
    }

    /// Adds a tensor of f32.
    pub fn tensor(&mut self, name: &str, shape: &[u64], values: Vec<f32>) {
        assert_eq!(shape.iter().product::<u64>(), values.len() as u64, "{name}");
        self.desc(name, shape);
        self.values.push(values);
    }

    /// Adds a tensor of f32 without its values.
    pub fn desc(&mut self, name: &str, shape: &[u64]) {
        let ty = GgmlType::F32;
        self.tensors.push(TensorDesc { name: name.into(), shape: shape.to_vec(), ty });
    }

    /// Two layers of small matrices, some of whose rows are no blocks of 256.
    pub fn small() -> Memory {
        let mut source = Memory::llama(2);
        let mut seed = 0;
        let mut tensor = |name: &str, shape: &[u64]| {
            seed += 1;
            source.tensor(name, shape, weights(seed, shape.iter().product::<u64>() as usize));
        };
        tensor("token_embd.weight", &[256, 40]);
        for l in 0..2 {
            tensor(&format!("blk.{l}.attn_norm.weight"), &[256]);
            tensor(&format!("blk.{l}.attn_q.weight"), &[256, 256]);
            tensor(&format!("blk.{l}.attn_v.weight"), &[256, 64]);
            tensor(&format!("blk.{l}.ffn_up.weight"), &[256, 96]);
            tensor(&format!("blk.{l}.ffn_down.weight"), &[96, 256]);
        }
        tensor("output_norm.weight", &[256]);
        source
    }
}

impl Source for Memory {
    fn path(&self) -> &Path {
        Path::new("source")
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn tensors(&self) -> &[TensorDesc] {
        &self.tensors
    }

    fn metadata(&self, to: &mut Builder) -> Result<()> {
        let arch = self.facts.arch.as_str();
        to.put("general.architecture", arch)?;
        to.put(&format!("{arch}.block_count"), &(self.facts.n_layer as u32))?;
        to.put(&format!("{arch}.attention.head_count"), &(self.facts.n_head as u32))?;
        let n_head_kv = self.facts.n_head_kv as u32;
        Ok(to.put(&format!("{arch}.attention.head_count_kv"), &n_head_kv)?)
    }

    fn read(&self, tensor: usize, rows: Range<u64>, out: &mut [f32]) -> Result<()> {
        let cols = self.tensors[tensor].cols();
        let values = &self.values[tensor];
        out.copy_from_slice(&values[rows.start as usize * cols..rows.end as usize * cols]);
        Ok(())
    }
}
