//! Writing a file: slices of rows are read, quantized by all threads, and written in order while
//! the next are computed. What is in memory is a few slices for each thread.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use siskin::GgmlType;
use siskin::gguf::{AtomicFile, Builder, Writer, split_name};
use siskin_quant::quantize::recode::ROWS;
use siskin_quant::table::KernelTable;

use crate::feedbacks::Feedbacks;
use crate::plan::{Plan, is_float, n_bytes};
use crate::{Error, Imatrix, Result, Source, TensorDesc};

/// Values in a slice, about: its f32 form stays in a core's cache.
const SLICE: usize = 128 * 1024;
/// Slices that are computed together, at most and for each thread.
const WINDOW: usize = 128;
const SLICES_PER_THREAD: usize = 8;

/// Where the data of tensors begins: at multiples of this.
pub const ALIGNMENT: u64 = 32;

/// The largest value that rounds to a finite f16.
const F16_MAX: f32 = 65519.996;
/// The largest value that rounds to a finite bf16.
const BF16_MAX: f32 = f32::from_bits(0x7f7f_7fff);

/// How a file is written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Threads; `None`: as many as there are cores.
    pub threads: Option<usize>,
    /// For each tensor the importance of its columns (of each expert's, one after another), or
    /// `None`; empty if there is none for any.
    pub importance: Vec<Option<Vec<f32>>>,
    /// From whose sketches quantizers know which columns are used together, so that their errors can
    /// cancel.
    pub sketches: Option<Arc<Imatrix>>,
    /// Keys to add.
    pub keys: Vec<(String, Key)>,
    /// Which parts are written.
    pub split: Split,
    /// A file that is there already is replaced.
    pub overwrite: bool,
}

/// The parts of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// One.
    #[default]
    None,
    /// Parts of at most this many bytes of data each, where a single tensor is not larger; the
    /// first has the keys besides.
    Bytes(u64),
    /// The same tensors in each part as in the source.
    Keep,
}

/// The value of an added key.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// A number.
    U32(u32),
    /// Text.
    Str(String),
}

/// How far the work is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Bytes of the source's tensors that are done.
    pub done: u64,
    /// All of them.
    pub total: u64,
    /// The tensor at hand.
    pub tensor: &'a str,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// Their bytes, without the keys.
    pub data_bytes: u64,
}

/// A few rows of a tensor.
struct Slice {
    tensor: usize,
    rows: Range<u64>,
    /// Bytes that they will have.
    bytes: usize,
}

/// All slices in the order in which they are written. None has rows of two experts, whose columns
/// have an importance of their own.
fn slices(tensors: &[TensorDesc], types: &[GgmlType], feedbacks: &Feedbacks<'_>) -> Vec<Slice> {
    let mut slices = Vec::new();
    for (tensor, (desc, ty)) in tensors.iter().zip(types).enumerate() {
        let row_bytes = ty.row_bytes(desc.cols()).unwrap_or(0);
        let matrix = desc.shape.get(1).copied().unwrap_or(1);
        let mut step = (SLICE / desc.cols().max(1)).max(1) as u64;
        if feedbacks.wanted(tensor) {
            step = step.next_multiple_of(ROWS as u64);
        }
        let mut start = 0;
        while start < desc.rows() {
            let expert_end = (start / matrix + 1) * matrix;
            let rows = start..(start + step).min(expert_end);
            start = rows.end;
            let bytes = (rows.end - rows.start) as usize * row_bytes;
            slices.push(Slice { tensor, rows, bytes });
        }
    }
    slices
}

/// What the threads share.
struct Job<'a> {
    source: &'a dyn Source,
    table: &'a KernelTable,
    types: &'a [GgmlType],
    importance: &'a [Option<Vec<f32>>],
    feedbacks: &'a Feedbacks<'a>,
    /// Room for the values of slices, as many as are computed at a time.
    rooms: Mutex<Vec<Vec<f32>>>,
}

impl Job<'_> {
    /// Computes the bytes of a slice.
    fn slice(&self, slice: &Slice, out: &mut [u8]) -> Result<()> {
        let rooms = || self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values = rooms().pop().unwrap_or_default();
        let result = self.slice_in(slice, &mut values, out);
        rooms().push(values);
        result
    }

    fn slice_in(&self, slice: &Slice, values: &mut Vec<f32>, out: &mut [u8]) -> Result<()> {
        let desc = &self.source.tensors()[slice.tensor];
        let ty = self.types[slice.tensor];
        let wrong = |reason: String| Error::tensor(self.source.path(), &desc.name, reason);
        if ty == desc.ty && !is_float(ty) {
            return match self.source.raw(slice.tensor, slice.rows.clone())? {
                Some(bytes) if bytes.len() == out.len() => {
                    out.copy_from_slice(&bytes);
                    Ok(())
                }
                _ => Err(wrong(format!("it has no {ty} to copy"))),
            };
        }
        let cols = desc.cols();
        values.resize((slice.rows.end - slice.rows.start) as usize * cols, 0.0);
        self.source.read(slice.tensor, slice.rows.clone(), values)?;
        let row = slice.rows.start;
        check_finite(self.source, desc, row, values)?;
        let most = match ty {
            GgmlType::F16 => F16_MAX,
            GgmlType::BF16 => BF16_MAX,
            _ => f32::INFINITY,
        };
        if most.is_finite()
            && let Some(i) = values.iter().position(|x| x.abs() > most)
        {
            let why = format!(", too large for {ty}");
            return Err(wrong_weight(self.source, desc, row, values, i, &why));
        }
        let all = self.importance.get(slice.tensor).and_then(Option::as_deref);
        let importance = importance_of_row(self.source, desc, all, row)?;
        let quantized = match self.feedbacks.of(slice.tensor)? {
            Some(f) => self.table.quantize_with_feedback(ty, values, importance, &f, out),
            None => self.table.quantize(ty, values, importance, out),
        };
        quantized.map_err(|e| wrong(e.to_string()))
    }
}

/// The importance of the columns of a row, of what there is for its tensor: of experts, each has its
/// own.
pub(crate) fn importance_of_row<'a>(
    source: &dyn Source,
    tensor: &TensorDesc,
    all: Option<&'a [f32]>,
    row: u64,
) -> Result<Option<&'a [f32]>> {
    let Some(all) = all else { return Ok(None) };
    let cols = tensor.cols();
    let expert = row / tensor.shape.get(1).copied().unwrap_or(1).max(1);
    let start = if all.len() == cols { 0 } else { expert as usize * cols };
    let found = all.get(start..start + cols).ok_or_else(|| {
        let reason = format!("{} importances for rows of {cols}, row {row}", all.len());
        Error::tensor(source.path(), &tensor.name, reason)
    })?;
    Ok(Some(found))
}

/// Refuses rows, the first of which is `row`, with a weight that is no number.
pub(crate) fn check_finite(
    source: &dyn Source,
    tensor: &TensorDesc,
    row: u64,
    values: &[f32],
) -> Result<()> {
    match not_finite(values) {
        Some(i) => Err(wrong_weight(source, tensor, row, values, i, "")),
        None => Ok(()),
    }
}

/// The error for value `i` of some rows.
fn wrong_weight(
    source: &dyn Source,
    tensor: &TensorDesc,
    row: u64,
    values: &[f32],
    i: usize,
    why: &str,
) -> Error {
    let (row, column) = (row + (i / tensor.cols()) as u64, i % tensor.cols());
    let reason = format!("the weight at row {row}, column {column} is {}{why}", values[i]);
    Error::tensor(source.path(), &tensor.name, reason)
}

/// Where the first value is that is no number.
fn not_finite(x: &[f32]) -> Option<usize> {
    let largest = x.iter().fold(0, |max: u32, x| max.max(x.to_bits() & 0x7fff_ffff));
    if largest < f32::INFINITY.to_bits() {
        return None;
    }
    x.iter().position(|x| !x.is_finite())
}

/// Writes `source` with the types of `plan` to `out`, or to parts named after it.
///
/// `progress` is told how far it is and can end it. Whatever goes wrong, what was at the target
/// stays, and nothing is left beside it; of several parts the system might still fail to rename the
/// second, with all of them on the disk, after it has renamed the first. The bytes depend on nothing
/// but the source, the plan, and the importance, sketches and keys of the options; of `table`, all
/// levels of which give the same, only the time does.
///
/// # Errors
/// The source cannot be read or has a weight that is no number; the target exists or cannot be
/// written; [`Error::Cancelled`].
pub fn write(
    source: &dyn Source,
    plan: &Plan,
    table: &KernelTable,
    out: &Path,
    options: &WriteOptions,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Written> {
    let parts = parts(source, plan, table, out, options, progress)?;
    let (paths, data_bytes) = (parts.paths.clone(), plan.n_bytes(source.tensors()));
    parts.commit()?;
    Ok(Written { paths, data_bytes })
}

/// Writes a file that stands beside `out`, under another name, until it is dropped. It has the types
/// that the source has.
pub(crate) fn write_temporary(
    source: &dyn Source,
    table: &KernelTable,
    out: &Path,
    threads: Option<usize>,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<AtomicFile> {
    let types = source.tensors().iter().map(|t| t.ty).collect();
    let plan = Plan { types, file_type: 0, notes: Vec::new() };
    let options = WriteOptions { threads, overwrite: true, ..WriteOptions::default() };
    let files = parts(source, &plan, table, out, &options, progress)?.finish()?;
    let none = || siskin::Error::Internal("nothing was written".into());
    Ok(files.into_iter().next().ok_or_else(none)?)
}

/// Computes and writes everything; no file has its name yet.
fn parts(
    source: &dyn Source,
    plan: &Plan,
    table: &KernelTable,
    out: &Path,
    options: &WriteOptions,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Parts> {
    let tensors = source.tensors();
    let parts = Parts::new(source, plan, out, options)?;
    let feedbacks = Feedbacks::new(tensors, plan, table, options.sketches.as_deref());
    let slices = slices(tensors, &plan.types, &feedbacks);
    let pool = pool(options.threads)?;
    let window = (SLICES_PER_THREAD * pool.current_num_threads()).min(WINDOW);
    let (types, importance) = (&plan.types, &options.importance);
    let rooms = Mutex::new(Vec::new());
    let job = Job { source, table, types, importance, feedbacks: &feedbacks, rooms };
    let source_bytes = |t: &TensorDesc| n_bytes(t, t.ty);
    let total = tensors.iter().map(source_bytes).sum();

    std::thread::scope(|scope| {
        // One window is written while the next is computed, and a third waits.
        let (filled, to_write) = sync_channel::<Filled<'_>>(1);
        let (used, emptied) = sync_channel::<Vec<u8>>(3);
        let writer = scope.spawn(move || parts.run(&to_write, &used));
        let mut computed = || -> Result<()> {
            let mut done = 0;
            let mut groups = slices.chunks(window).peekable();
            while let Some(group) = groups.next() {
                let mut bytes = emptied.try_recv().unwrap_or_default();
                bytes.resize(group.iter().map(|s| s.bytes).sum(), 0);
                // What the next slices need is computed beside these, since only one thread can.
                let prepare = || prepare(&job, groups.peek().copied().unwrap_or_default());
                let (filled_all, ()) =
                    pool.install(|| rayon::join(|| fill(&job, group, &mut bytes), prepare));
                filled_all?;
                if filled.send(Filled { slices: group, bytes }).is_err() {
                    // The writer has failed, and says why.
                    return Ok(());
                }
                for slice in group {
                    let tensor = &tensors[slice.tensor];
                    done += (slice.rows.end - slice.rows.start) * source_bytes(tensor)
                        / tensor.rows().max(1);
                    if slice.rows.end == tensor.rows() {
                        source.done(slice.tensor);
                        feedbacks.done(slice.tensor);
                    }
                }
                let tensor = group.last().map_or("", |s| &tensors[s.tensor].name);
                if progress(Progress { done, total, tensor }).is_break() {
                    return Err(Error::Cancelled);
                }
            }
            Ok(())
        };
        let computed = computed();
        drop(filled);
        let written = writer.join().map_err(|_| {
            Error::Siskin(siskin::Error::Internal("the thread that writes panicked".into()))
        })?;
        // If computing failed, the writer has seen fewer tensors than it should: dropped, it
        // removes what it wrote.
        computed?;
        written
    })
}

/// Threads to work with.
pub(crate) fn pool(threads: Option<usize>) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .build()
        .map_err(|e| Error::Invalid(format!("threads cannot be started: {e}")))
}

/// Slices and their bytes, one after another.
struct Filled<'a> {
    slices: &'a [Slice],
    bytes: Vec<u8>,
}

/// Lets what slices need be computed. Errors are left to them.
fn prepare(job: &Job<'_>, slices: &[Slice]) {
    let tensors = slices.chunk_by(|a, b| a.tensor == b.tensor).filter_map(<[Slice]>::first);
    tensors.par_bridge().for_each(|slice| drop(job.feedbacks.of(slice.tensor)));
}

/// Computes the bytes of several slices; of several errors, the first slice's.
fn fill(job: &Job<'_>, slices: &[Slice], bytes: &mut [u8]) -> Result<()> {
    let mut rest = bytes;
    let mut pairs = Vec::with_capacity(slices.len());
    for slice in slices {
        let (out, behind) = rest.split_at_mut(slice.bytes);
        pairs.push((slice, out));
        rest = behind;
    }
    let results: Vec<Result<()>> =
        pairs.into_par_iter().with_max_len(1).map(|(slice, out)| job.slice(slice, out)).collect();
    results.into_iter().collect()
}

/// The files that are written: one, or the parts of one.
struct Parts {
    paths: Vec<PathBuf>,
    /// Those that are still to be begun, the last first.
    builders: Vec<Builder>,
    /// Those that are begun; all but the last are whole.
    writers: Vec<Writer<AtomicFile>>,
}

impl Parts {
    /// Declares everything. Nothing is created yet.
    fn new(source: &dyn Source, plan: &Plan, out: &Path, options: &WriteOptions) -> Result<Parts> {
        let starts = starts(source, plan, options.split);
        let count = starts.len();
        let Ok(n_parts) = u16::try_from(count) else {
            return Err(Error::Invalid(format!("{count} parts are more than a file can have")));
        };
        let paths = paths(out, count);
        refuse_existing(&paths, options.overwrite)?;
        let mut builders = Vec::with_capacity(count);
        for (i, start) in (0..n_parts).zip(&starts) {
            let end = starts.get(usize::from(i) + 1).copied().unwrap_or(plan.types.len());
            let part = (n_parts > 1).then_some((i, n_parts));
            builders.push(declare(source, plan, &options.keys, *start..end, part)?);
        }
        builders.reverse();
        Ok(Parts { paths, builders, writers: Vec::new() })
    }

    /// Begins the next part.
    fn begin(&mut self) -> Result<()> {
        let path = &self.paths[self.writers.len()];
        if let Some(builder) = self.builders.pop() {
            self.writers.push(builder.create(path)?);
        }
        Ok(())
    }

    /// Writes what comes, and gives the memory back.
    fn run(mut self, filled: &Receiver<Filled<'_>>, used: &SyncSender<Vec<u8>>) -> Result<Parts> {
        self.begin()?;
        for Filled { slices, bytes } in filled {
            let mut rest = &bytes[..];
            for slice in slices {
                let (data, behind) = rest.split_at(slice.bytes);
                rest = behind;
                if self.writers.last().is_none_or(|w| w.next_tensor().is_none()) {
                    self.begin()?;
                }
                if let Some(writer) = self.writers.last_mut() {
                    writer.write(data)?;
                }
            }
            // Full only if nobody takes it.
            let _ = used.try_send(bytes);
        }
        Ok(self)
    }

    /// Ends all parts.
    fn finish(mut self) -> Result<Vec<AtomicFile>> {
        while !self.builders.is_empty() {
            self.begin()?;
        }
        Ok(self.writers.into_iter().map(Writer::finish).collect::<Result<_, _>>()?)
    }

    /// Gives all parts their names, when all of them are on the disk.
    fn commit(self) -> Result<()> {
        let mut files = self.finish()?;
        files.iter_mut().try_for_each(AtomicFile::sync)?;
        files.into_iter().try_for_each(|file| Ok(file.commit()?))
    }
}

/// The first tensor of each part.
fn starts(source: &dyn Source, plan: &Plan, split: Split) -> Vec<usize> {
    let mut starts = vec![0];
    let mut bytes = 0;
    for (i, (tensor, ty)) in source.tensors().iter().zip(&plan.types).enumerate() {
        let size = n_bytes(tensor, *ty);
        let begins = match split {
            Split::None => false,
            Split::Bytes(most) => bytes > 0 && bytes + size > most,
            Split::Keep => i > 0 && source.part(i) != source.part(i - 1),
        };
        if begins {
            starts.push(i);
            bytes = 0;
        }
        bytes += size;
    }
    starts
}

/// The paths of the parts of `out`.
fn paths(out: &Path, count: usize) -> Vec<PathBuf> {
    if count == 1 {
        return vec![out.to_path_buf()];
    }
    let name = out.file_name().and_then(|n| n.to_str()).unwrap_or("model");
    let stem = name.strip_suffix(".gguf").unwrap_or(name);
    let part = |i| out.with_file_name(split_name(stem, i, count as u64));
    (1..=count as u64).map(part).collect()
}

/// Refuses paths at which something is, unless it may be replaced.
///
/// # Errors
/// [`Error::File`] that names it.
pub fn refuse_existing(paths: &[PathBuf], overwrite: bool) -> Result<()> {
    match paths.iter().find(|p| p.exists() && !overwrite) {
        Some(there) => Err(Error::file(there, "it exists already; --force replaces it")),
        None => Ok(()),
    }
}

/// Declares a file, or part `part.0` of `part.1`, with some of the tensors.
pub(crate) fn declare(
    source: &dyn Source,
    plan: &Plan,
    keys: &[(String, Key)],
    tensors: Range<usize>,
    part: Option<(u16, u16)>,
) -> Result<Builder> {
    let mut builder = Builder::new();
    if part.is_none_or(|(i, _)| i == 0) {
        source.metadata(&mut builder)?;
        builder.put("general.file_type", &plan.file_type)?;
        builder.put("general.quantization_version", &2u32)?;
        for (key, value) in keys {
            match value {
                Key::U32(x) => builder.put(key, x)?,
                Key::Str(x) => builder.put(key, x)?,
            }
        }
    }
    if let Some((i, count)) = part {
        builder.put("split.no", &i)?;
        builder.put("split.count", &count)?;
        builder.put("split.tensors.count", &(plan.types.len() as i32))?;
    }
    for i in tensors {
        let tensor = &source.tensors()[i];
        builder.tensor(&tensor.name, plan.types[i], &tensor.shape)?;
    }
    Ok(builder)
}
