//! Every file type gives every tensor the type that llama.cpp gives it (recorded by
//! tools/peers/mixes.py).

mod support;

use serde_json::Value;
use siskin::GgmlType;
use siskin_convert::{Facts, FileType, Plan, PlanOptions};

use support::{Memory, table};

fn number(value: &Value, key: &str) -> usize {
    value[key].as_u64().expect(key) as usize
}

/// The tensors of a shape, as the script makes them.
fn model(shape: &Value, cols: u64, small: u64) -> Memory {
    let facts = Facts {
        arch: shape["arch"].as_str().expect("an architecture").into(),
        n_layer: number(shape, "layers"),
        n_head: number(shape, "heads"),
        n_head_kv: number(shape, "kv"),
        n_expert: number(shape, "experts"),
    };
    let experts = facts.n_expert as u64;
    let mut model = Memory { facts, ..Memory::default() };
    model.desc("token_embd.weight", &[cols, 4]);
    if !shape["tied"].as_bool().expect("tied") {
        model.desc("output.weight", &[cols, 4]);
    }
    for layer in 0..model.facts.n_layer {
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            model.desc(&format!("blk.{layer}.{part}.weight"), &[cols, 4]);
        }
        for part in ["ffn_gate", "ffn_up", "ffn_down"] {
            if experts > 0 {
                model.desc(&format!("blk.{layer}.{part}_exps.weight"), &[cols, 4, experts]);
            } else {
                let cols = if part == "ffn_down" && layer % 5 == 0 { small } else { cols };
                model.desc(&format!("blk.{layer}.{part}.weight"), &[cols, 4]);
            }
        }
        if experts > 0 {
            model.desc(&format!("blk.{layer}.ffn_gate_inp.weight"), &[cols, experts]);
        }
    }
    model
}

/// The recorded type of a tensor.
fn recorded<'a>(types: &'a Value, name: &str) -> &'a str {
    let (layer, part) = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (layer.parse().ok(), part),
        None => (None, name),
    };
    match &types[part] {
        Value::String(ty) => ty,
        Value::Object(of) => {
            let has = |layers: &Value| {
                layers.as_array().is_some_and(|l| l.iter().any(|l| l.as_u64() == layer))
            };
            of.iter().find(|(_, layers)| has(layers)).map(|(ty, _)| ty).expect(name)
        }
        other => panic!("{name}: {other}"),
    }
}

#[test]
fn types_are_those_of_llama_cpp() {
    let data: Value = serde_json::from_str(include_str!("data/mixes.json")).expect("JSON");
    let (cols, small) = (number(&data, "cols") as u64, number(&data, "small") as u64);
    let shapes = data["shapes"].as_array().expect("shapes");
    let mut compared = 0;
    for case in data["cases"].as_array().expect("cases") {
        let shape = shapes.iter().find(|s| s["name"] == case["shape"]).expect("a shape");
        let model = model(shape, cols, small);
        let number = number(case, "file_type") as u32;
        let file_type = FileType::from_number(number).expect("a file type");
        let imatrix = case["imatrix"].as_bool().expect("imatrix");
        let options = PlanOptions { imatrix, ..PlanOptions::new(file_type) };
        let types = case["types"].as_object().expect("types");
        let what = format!("{} {} imatrix {imatrix}", shape["name"], file_type.name);
        let plan = Plan::new(&model, &options, &table());
        if types.is_empty() {
            // llama.cpp refuses, for want of an importance matrix or of a smaller type.
            let expected = plan.is_err() || model.tensors.iter().any(|t| t.cols() as u64 == small);
            assert!(expected, "{what}: should have been refused");
            continue;
        }
        let plan = plan.unwrap_or_else(|e| panic!("{what}: {e}"));
        for (tensor, ty) in model.tensors.iter().zip(&plan.types) {
            let want = GgmlType::from_name(recorded(&case["types"], &tensor.name));
            assert_eq!(Some(*ty), want, "{what}: {}", tensor.name);
            compared += 1;
        }
    }
    assert!(compared > 20_000, "{compared} types compared");
}
