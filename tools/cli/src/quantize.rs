//! `siskin quantize`

use std::path::PathBuf;

use clap::Args;
use siskin_convert::GgufSource;

use crate::store;
use crate::writing::{self, OutputArgs, TypeArgs};

/// Makes a smaller file of a GGUF file: `siskin quantize model-f16.gguf model-q4_k_m.gguf q4_k_m`.
///
/// The best source is the original in F32, BF16 or F16; a file that is quantized already is refused
/// unless --allow-requantize is given. The file made depends on the source and the options only,
/// not on the machine or the number of threads.
#[derive(Args)]
#[command(after_help = writing::file_types_help())]
pub struct QuantizeArgs {
    /// The source: a path, a name in the store, or hf:OWNER/REPO/FILE.gguf.
    source: String,
    /// The file to write.
    out: PathBuf,
    /// The file type (see below).
    #[arg(value_name = "TYPE", required_unless_present_any = ["size", "bpw"])]
    file_type: Option<String>,
    #[command(flatten)]
    types: TypeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn main(args: QuantizeArgs) -> anyhow::Result<()> {
    let source = GgufSource::open(&store::resolve(&args.source)?)?;
    writing::write(
        &source,
        args.file_type.as_deref(),
        &args.types,
        &args.out,
        &args.output,
        Vec::new(),
    )
}
