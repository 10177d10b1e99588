//! `siskin inspect`

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use serde_json::{Value as Json, json};
use siskin::gguf::{GgufFile, Value};
use siskin::model::Model;
use siskin::{MemoryPlan, SessionShape};

use crate::args::SessionArgs;
use crate::{output, store};

/// Shows what is in a GGUF file: metadata, tensors, sizes for each type, and the memory that
/// running it takes.
#[derive(Args)]
pub struct InspectArgs {
    /// A path, a name in the store, or hf:OWNER/REPO/FILE.gguf.
    #[arg(default_value = crate::catalog::DEFAULT)]
    file: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    session: SessionArgs,
}

/// Characters of a string, or elements of an array, that are shown.
const SHOWN: usize = 80;

fn to_json(value: &Value<'_>, elements: usize) -> Json {
    match value {
        Value::U8(x) => json!(x),
        Value::I8(x) => json!(x),
        Value::U16(x) => json!(x),
        Value::I16(x) => json!(x),
        Value::U32(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::U64(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Bool(x) => json!(x),
        Value::String(x) => json!(String::from_utf8_lossy(x)),
        Value::Array(array) => {
            let some = (0..array.len().min(elements)).filter_map(|i| array.get(i));
            json!(some.map(|v| to_json(&v, 0)).collect::<Vec<_>>())
        }
    }
}

fn shown(value: &Value<'_>) -> String {
    if let Value::Array(array) = value {
        let first: Vec<String> =
            (0..array.len().min(4)).filter_map(|i| array.get(i)).map(|v| shown(&v)).collect();
        let more = if array.len() > 4 { ", ..." } else { "" };
        return format!("{array:?} {}{more}", first.join(", "));
    }
    let text = match value {
        Value::String(x) => format!("{:?}", String::from_utf8_lossy(x)),
        other => to_json(other, 0).to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// The shape and the plan of a session, if the file holds a model.
fn plan(file: &GgufFile, args: &SessionArgs) -> siskin::Result<(SessionShape, MemoryPlan)> {
    let model = Model::new(file)?;
    let h = &model.hparams;
    let shape = args.options(h.n_ctx_train).shape(h)?;
    Ok((shape, MemoryPlan::new(h, &model.weights, file.file_bytes(), &shape)))
}

pub fn main(args: InspectArgs) -> anyhow::Result<()> {
    let file = GgufFile::open(store::resolve(&args.file)?)?;
    let mut types: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut elements = 0u64;
    for tensor in file.tensors() {
        let entry = types.entry(tensor.ty.name()).or_default();
        entry.0 += 1;
        entry.1 += tensor.n_bytes;
        elements = elements.saturating_add(tensor.shape.iter().product());
    }
    let plan = plan(&file, &args.session);
    if args.json {
        let metadata: serde_json::Map<String, Json> =
            file.metadata().iter().map(|(k, v)| (k.to_string(), to_json(&v, usize::MAX))).collect();
        let tensors: Vec<Json> = file
            .tensors()
            .iter()
            .map(|t| {
                json!({
                    "name": t.name, "type": t.ty.name(), "shape": t.shape,
                    "part": t.part, "offset": t.offset, "bytes": t.n_bytes,
                })
            })
            .collect();
        let types: serde_json::Map<String, Json> = types
            .iter()
            .map(|(ty, (n, bytes))| (ty.to_string(), json!({ "tensors": n, "bytes": bytes })))
            .collect();
        let memory = match &plan {
            Ok((shape, plan)) => json!({
                "ctx": shape.n_ctx, "batch": shape.n_batch, "weights": plan.weights,
                "kv_cache": plan.kv_cache, "workspace": plan.workspace, "total": plan.total(),
            }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        return output::json(&json!({
            "path": file.path(), "version": file.version(), "bytes": file.file_bytes(),
            "parts": file.n_parts(), "parameters": elements, "metadata": metadata,
            "types": types, "memory": memory, "tensors": tensors,
        }));
    }
    let mut text = String::new();
    writeln!(
        text,
        "{}: GGUF v{}, {}, {} tensors, {:.1} M parameters",
        file.path().display(),
        file.version(),
        output::bytes(file.file_bytes()),
        file.tensors().len(),
        elements as f64 / 1e6,
    )?;
    writeln!(text, "\nMetadata")?;
    for (key, value) in file.metadata().iter() {
        writeln!(text, "  {key} = {}", shown(&value))?;
    }
    if !types.is_empty() {
        writeln!(text, "\nTypes")?;
        for (ty, (n, bytes)) in &types {
            writeln!(text, "  {ty:8} {n:5} tensors {:>12}", output::bytes(*bytes))?;
        }
    }
    if args.tensors {
        writeln!(text, "\nTensors")?;
        for t in file.tensors() {
            let bytes = output::bytes(t.n_bytes);
            writeln!(text, "  {:40} {:8} {:?} {bytes}", t.name, t.ty.name(), t.shape)?;
        }
    }
    match plan {
        Ok((shape, plan)) => {
            let (k, v) = (shape.k_type, shape.v_type);
            writeln!(
                text,
                "\nMemory for {} positions, keys as {k:?}, values as {v:?}\n  weights   {:>12}\n  \
                 KV cache  {:>12}\n  workspace {:>12}\n  total     {:>12}",
                shape.n_ctx,
                output::bytes(plan.weights),
                output::bytes(plan.kv_cache),
                output::bytes(plan.workspace),
                output::bytes(plan.total()),
            )?;
        }
        Err(error) => writeln!(text, "\nCannot be run: {error}")?,
    }
    output::print(&text)
}
