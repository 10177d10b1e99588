//! What a model measures of itself with the text that is built in.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use siskin::gguf::GgufFile;
use siskin::model::ImatrixOptions;
use siskin::{EncodeOptions, Engine, EngineOptions, Session, SessionOptions};
use siskin_convert::calibrate::{Amount, Calibrator};
use siskin_convert::write::write;
use siskin_convert::{
    Checkpoint, ConvertOptions, Error, GgufSource, Imatrix, Plan, Progress, Source, WriteOptions,
};
use siskin_quant::table::KernelTable;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(path)
}

fn tiny(name: &str) -> GgufSource {
    GgufSource::open(&data("archs").join(name).with_extension("gguf")).unwrap()
}

fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn calibrator(source: &dyn Source, amount: Amount, out: &Path) -> Result<Calibrator, Error> {
    let table = KernelTable::detect().unwrap();
    Calibrator::new(source, amount, out, &table, Some(2), &mut go_on)
}

fn measure(source: &dyn Source, amount: Amount, out: &Path) -> Imatrix {
    calibrator(source, amount, out).unwrap().run(&mut |_| ()).unwrap()
}

/// The sums of all tensors.
fn sums(imatrix: &Imatrix) -> BTreeMap<String, Vec<f32>> {
    imatrix.entries().map(|(name, entry)| (name.to_string(), entry.sums().to_vec())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_sums_are_those_of_the_texts_first_tokens() {
    for name in ["llama", "gemma3", "qwen3"] {
        let source = tiny(name);
        let mut told = Vec::new();
        let calibrator = calibrator(&source, Amount::Quick, Path::new("none")).unwrap();
        let n_tokens = calibrator.n_tokens();
        let imatrix = calibrator.run(&mut |done| told.push(done)).unwrap();
        assert_eq!(n_tokens, 192);
        assert_eq!(told.last(), Some(&192));

        let engine = Engine::load(source.path(), &EngineOptions::default()).unwrap();
        let text = include_str!("../src/calibration.txt");
        let encode = EncodeOptions { add_special: true, parse_special: false };
        let tokens = engine.tokenizer().encode(text, encode).unwrap();
        let mut session = Session::new(&engine, &SessionOptions::default()).unwrap();
        session.collect_imatrix(ImatrixOptions::default()).unwrap();
        // These models were made for fewer positions than are read in a row otherwise.
        let n_ctx = engine.hparams().n_ctx_train;
        assert!(n_ctx < 512);
        let bos = engine.tokenizer().bos().filter(|_| engine.tokenizer().add_bos());
        for chunk in tokens[..192].chunks(n_ctx) {
            let mut chunk = chunk.to_vec();
            chunk[0] = bos.unwrap_or(chunk[0]);
            session.rewind(0);
            session.prefill(&chunk).unwrap();
        }
        let mut want = Imatrix::new("by hand", 1);
        want.add_collected(session.take_imatrix().unwrap()).unwrap();
        assert_eq!(sums(&imatrix), sums(&want), "{name}");
        assert!(imatrix.entries().all(|(_, entry)| entry.counts() == [192]));
        assert_eq!(imatrix.n_sketched(), 0);
    }
}

#[test]
fn all_of_the_text_tells_which_columns_are_used_together() {
    let source = tiny("qwen2");
    let imatrix = measure(&source, Amount::Full, Path::new("none"));
    assert_eq!(imatrix.n_sketched(), imatrix.entries().len());
    // 2 layers of 7 matrices.
    assert_eq!(imatrix.entries().len(), 14);
    assert!(imatrix.entries().all(|(_, entry)| entry.counts() == [2048]));
    let again = measure(&source, Amount::Full, Path::new("none"));
    assert!(again == imatrix);
}

#[test]
fn a_checkpoint_measures_what_its_file_does_and_leaves_no_copy() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let table = KernelTable::detect().unwrap();
    for name in ["llama", "gemma3", "qwen2"] {
        let path = data("checkpoints").join(name);
        let checkpoint = Checkpoint::open(&path, &ConvertOptions::default()).unwrap();
        let calibrator = calibrator(&checkpoint, Amount::Quick, &out).unwrap();
        // The copy has lost its name, where that can be; it never has that of what will be there, which
        // may be there already.
        assert_eq!(names(folder.path()).len(), usize::from(!cfg!(unix)));
        assert!(!out.exists());
        let of_checkpoint = calibrator.run(&mut |_| ()).unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new());

        let types = checkpoint.tensors().iter().map(|t| t.ty).collect();
        let plan = Plan { types, file_type: 0, notes: Vec::new() };
        let options = WriteOptions::default();
        write(&checkpoint, &plan, &table, &out, &options, &mut go_on).unwrap();
        let file = GgufSource::open(&out).unwrap();
        assert_eq!(sums(&of_checkpoint), sums(&measure(&file, Amount::Quick, &out)), "{name}");
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn models_that_do_not_run_are_told_apart_from_what_goes_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let reason = |result: Result<Calibrator, Error>| match result {
        Err(Error::CannotRun(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it runs"),
    };
    // No copy is made of what would not run.
    let bert = Checkpoint::open(&data("checkpoints/bert"), &ConvertOptions::default()).unwrap();
    let nowhere = folder.path().join("missing/out.gguf");
    assert!(reason(calibrator(&bert, Amount::Quick, &nowhere)).contains("`bert`"));
    let llama = Checkpoint::open(&data("checkpoints/llama"), &ConvertOptions::default()).unwrap();
    let error = calibrator(&llama, Amount::Quick, &nowhere).err().unwrap();
    assert!(error.to_string().contains("missing"), "{error}");
    let mut stop = |_: Progress<'_>| ControlFlow::Break(());
    let table = KernelTable::detect().unwrap();
    let ended = Calibrator::new(&llama, Amount::Quick, &out, &table, Some(2), &mut stop);
    assert!(matches!(ended, Err(Error::Cancelled)));
    assert_eq!(names(folder.path()), Vec::<String>::new());

    // A file whose norms make everything infinite, and one with no layers' tensors.
    let from = GgufFile::open(data("archs/llama.gguf")).unwrap();
    for (without, scale) in [("blk.1.ffn_up.weight", 1.0f32), ("", f32::INFINITY)] {
        let mut builder = siskin::gguf::Builder::new();
        builder.copy(from.metadata(), |_| true).unwrap();
        let kept = || from.tensors().iter().filter(|t| t.name != without);
        kept().try_for_each(|t| builder.tensor(&t.name, t.ty, &t.shape)).unwrap();
        let mut writer = builder.create(&out).unwrap();
        for t in kept() {
            let mut data = from.tensor_data(t).to_vec();
            if t.name == "blk.0.attn_norm.weight" {
                data[..4].copy_from_slice(&(scale * 1.0).to_le_bytes());
            }
            writer.tensor(&t.name, &data).unwrap();
        }
        writer.commit().unwrap();
        let source = GgufSource::open(&out).unwrap();
        let reason = match calibrator(&source, Amount::Quick, &out) {
            Ok(calibrator) => calibrator.run(&mut |_| ()).err().unwrap().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(reason.starts_with("the model cannot be run"), "{reason}");
        assert!(reason.contains(if scale == 1.0 { without } else { "not finite" }), "{reason}");
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn a_cancel_ends_it() {
    let source = tiny("llama");
    let calibrator = calibrator(&source, Amount::Full, Path::new("none")).unwrap();
    calibrator.cancel_handle().cancel();
    assert!(matches!(calibrator.run(&mut |_| ()), Err(Error::Cancelled)));
}
