//! The type of every tensor of a file, decided before anything is written.

use std::collections::BTreeMap;

use regex::Regex;
use siskin::GgmlType;
use siskin_quant::quantize;
use siskin_quant::table::KernelTable;
use siskin_quant::types::Act;

use crate::budget::{Budget, Choice};
use crate::file_type::FileType;
use crate::mix::{self, Mix, Role};
use crate::{Error, Imatrix, Result, Source, TensorDesc, problems};

/// A type for the tensors whose name a pattern finds: `ffn_down=q6_k`.
#[derive(Clone, Debug)]
pub struct TensorRule {
    pattern: Regex,
    ty: GgmlType,
}

/// The type with a name, if it is one of weights.
///
/// # Errors
/// [`Error::Invalid`] with the names that there are.
pub fn weight_type(name: &str) -> Result<GgmlType> {
    let is_weight = |ty: &GgmlType| ty.info().act != Act::None;
    GgmlType::from_name(name).filter(is_weight).ok_or_else(|| {
        let names = GgmlType::ALL.iter().copied().filter(is_weight);
        let names: Vec<_> = names.map(|ty| ty.name().to_ascii_lowercase()).collect();
        Error::Invalid(format!("`{name}` is no type of weights; there are {}", names.join(", ")))
    })
}

impl TensorRule {
    /// Parses `PATTERN=TYPE`, where the pattern is a regular expression that is looked for anywhere
    /// in the tensors' GGUF names.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says which part is wrong.
    pub fn parse(text: &str) -> Result<TensorRule> {
        let Some((pattern, ty)) = text.rsplit_once('=') else {
            let reason = format!("`{text}` is not PATTERN=TYPE, such as ffn_down=q6_k");
            return Err(Error::Invalid(reason));
        };
        let ty = weight_type(ty)?;
        let pattern = Regex::new(pattern)
            .map_err(|e| Error::Invalid(format!("`{pattern}` is no regular expression: {e}")))?;
        Ok(TensorRule { pattern, ty })
    }
}

/// How types are chosen.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// The named type of the file.
    pub file_type: &'static FileType,
    /// Every matrix gets the file type's own type, without the mix.
    pub pure: bool,
    /// Types for tensors by name: the first that fits goes before the mix.
    pub rules: Vec<TensorRule>,
    /// The type of the output matrix.
    pub output: Option<GgmlType>,
    /// The type of the embeddings.
    pub embedding: Option<GgmlType>,
    /// The user has an importance matrix: mixes depend on it, as llama.cpp's do.
    pub imatrix: bool,
    /// The model measures the importance of its columns itself
    /// ([`calibrate`](crate::calibrate)): the mixes are those without a matrix, but types that need
    /// one can be had.
    pub calibrated: bool,
    /// Tensors that are quantized already may be quantized to another type, which loses more.
    pub requantize: bool,
}

impl PlanOptions {
    /// The mix of a file type, and nothing else.
    pub fn new(file_type: &'static FileType) -> PlanOptions {
        PlanOptions {
            file_type,
            pure: false,
            rules: Vec::new(),
            output: None,
            embedding: None,
            imatrix: false,
            calibrated: false,
            requantize: false,
        }
    }

    /// The type that they give to a tensor by its name, whatever the file type. `tied`: the
    /// embeddings are the output matrix.
    fn named(&self, tensor: &TensorDesc, tied: bool) -> Option<GgmlType> {
        let role = Role::of(&tensor.name);
        let by_role = match role {
            Role::TokenEmbd => self.embedding,
            Role::Output => self.output,
            _ => None,
        };
        let by_rule = || self.rules.iter().find(|rule| rule.pattern.is_match(&tensor.name));
        let as_output = if tied && role == Role::TokenEmbd { self.output } else { None };
        by_role.or_else(|| by_rule().map(|rule| rule.ty)).or(as_output)
    }
}

/// The file type that loses nothing.
fn exact() -> &'static FileType {
    FileType::from_number(32).unwrap_or(&crate::FILE_TYPES[0])
}

/// The types of a file that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of each tensor of the source, in its order.
    pub types: Vec<GgmlType>,
    /// What `general.file_type` says.
    pub file_type: u32,
    /// What was not as asked for, and why: a sentence each.
    pub notes: Vec<String>,
}

/// True if values of the type are exact, or are taken for exact.
pub fn is_float(ty: GgmlType) -> bool {
    ty.info().act == Act::F32
}

/// Names, of many the first.
fn some(names: &[String]) -> String {
    problems::join(names, ", ", 5)
}

impl Plan {
    /// Chooses a type for every tensor of `source`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a type cannot be written, quantized tensors would be quantized
    /// again, a tensor needs an importance matrix and there is none, or a rule fits no tensor.
    pub fn new(source: &dyn Source, options: &PlanOptions, table: &KernelTable) -> Result<Plan> {
        let tensors = source.tensors();
        let mix = Mix::new(options.file_type, tensors, source.facts(), options.imatrix);
        let tied = mix::tied(tensors);
        // Rows of this length, that are no whole blocks of the first type: the second, so often.
        let mut replaced: BTreeMap<(usize, GgmlType, GgmlType), usize> = BTreeMap::new();
        let mut types = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let wanted = wanted(tensor, &mix, tied, options);
            let fitting = mix::fitting(wanted, tensor.cols());
            if fitting != wanted {
                *replaced.entry((tensor.cols(), wanted, fitting)).or_default() += 1;
            }
            types.push(fitting);
        }
        let matches = |rule: &TensorRule, t: &TensorDesc| {
            mix::is_quantized(t) && rule.pattern.is_match(&t.name)
        };
        let unused = |rule: &&TensorRule| !tensors.iter().any(|t| matches(rule, t));
        if let Some(rule) = options.rules.iter().find(unused) {
            let reason = format!("no matrix has `{}` in its name", rule.pattern);
            return Err(Error::Invalid(reason + " (norms and vectors keep their type)"));
        }
        check(source, &types, options, table)?;
        let note = |((cols, wanted, fitting), n)| {
            let block = GgmlType::block_len(wanted);
            format!(
                "{n} tensors become {fitting}: rows of {cols} are no blocks of {block} ({wanted})"
            )
        };
        let notes = replaced.into_iter().map(note).collect();
        Ok(Plan { types, file_type: options.file_type.number, notes })
    }

    /// Chooses the types that make the most of a size; `options` says what to take for tensors by
    /// name, and its file type counts for nothing. Returns what each tensor was given, too.
    ///
    /// # Errors
    /// As [`new`](Self::new), or the size is too small, or `progress` (tensors measured, of how
    /// many) wanted no more.
    pub fn for_size(
        source: &dyn Source,
        options: &PlanOptions,
        budget: &Budget<'_>,
        table: &KernelTable,
        progress: &(dyn Fn(usize, usize) -> bool + Sync),
    ) -> Result<(Plan, Vec<Choice>)> {
        // What is not chosen: exact, if nobody says otherwise.
        let fixed = Plan::fixed(source, options, table)?;
        let tied = mix::tied(source.tensors());
        let free = |tensor: &TensorDesc| options.named(tensor, tied).is_none();
        let mut made = budget.choose(source, &fixed, &free, table, progress)?;
        made.0.notes = fixed.notes;
        Ok(made)
    }

    /// What [`for_size`](Self::for_size) does not choose, by whatever size; other matrices are as
    /// exact as they are.
    ///
    /// # Errors
    /// As [`new`](Self::new), which is better known before the long work.
    pub fn fixed(source: &dyn Source, options: &PlanOptions, table: &KernelTable) -> Result<Plan> {
        let fixed = PlanOptions { pure: true, ..options.clone() };
        let fixed = PlanOptions { file_type: exact(), ..fixed };
        let fixed = Plan::new(source, &fixed, table)?;
        let tensors = source.tensors();
        let tied = mix::tied(tensors);
        let free = |t: &TensorDesc| options.named(t, tied).is_none() && mix::is_quantized(t);
        let quantized = |(t, ty): (&TensorDesc, &GgmlType)| match free(t) {
            true => GgmlType::Q8_0,
            false => *ty,
        };
        let all: Vec<_> = tensors.iter().zip(&fixed.types).map(quantized).collect();
        check(source, &all, options, table)?;
        Ok(fixed)
    }

    /// The importance of the columns of each tensor that is quantized, as
    /// [`WriteOptions`](crate::WriteOptions) takes it; nothing for a tensor of which the matrix has
    /// nothing.
    ///
    /// # Errors
    /// The matrix is that of another model, or has nothing of a tensor that needs it.
    pub fn importance(
        &self,
        tensors: &[TensorDesc],
        imatrix: &Imatrix,
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let file = FileType::from_number(self.file_type);
        let mut known = 0;
        let all = imatrix.importance_of(tensors)?;
        let mut of = |(tensor, ty, found): (&TensorDesc, GgmlType, Option<Vec<f32>>)| {
            if !mix::is_quantized(tensor) || is_float(ty) {
                return Ok(None);
            }
            known += usize::from(found.is_some());
            let needed = file.is_some_and(|f| mix::needs_imatrix(Role::of(&tensor.name), ty, f));
            if found.is_none() && needed {
                let reason = format!("nothing is known of it, and {ty} needs that");
                return Err(Error::tensor(imatrix.path(), &tensor.name, reason));
            }
            Ok(found)
        };
        let known_of = tensors.iter().zip(&self.types).zip(all);
        let all = known_of.map(|((tensor, ty), found)| of((tensor, *ty, found)));
        let all = all.collect::<Result<Vec<_>>>()?;
        if known == 0 && self.types.iter().any(|ty| !is_float(*ty)) {
            return Err(imatrix.of_another());
        }
        Ok(all)
    }

    /// True if a matrix gets a type for which it matters which of its columns are used most. Of
    /// embeddings and output that is not measured, as in llama.cpp.
    pub fn weighs_columns(&self, tensors: &[TensorDesc]) -> bool {
        let weighs = |t: &TensorDesc, ty| ty != t.ty && quantize::weighs_columns(ty);
        self.any_of_layers(tensors, weighs)
    }

    /// True if a matrix gets a type that is better where it is known which of its columns are used
    /// together, and that is measured.
    pub fn recodes(&self, tensors: &[TensorDesc], table: &KernelTable) -> bool {
        self.any_of_layers(tensors, |t, ty| recodes(t, ty, table))
    }

    /// True if a tensor is quantized with feedback, by sketches of these.
    pub fn uses_sketches(
        &self,
        tensors: &[TensorDesc],
        table: &KernelTable,
        sketches: &Imatrix,
    ) -> bool {
        let mut pairs = tensors.iter().zip(&self.types);
        pairs.any(|(t, ty)| recodes(t, *ty, table) && sketches.has_sketch_of(&t.name))
    }

    /// True if there is such a tensor, with its type, that is neither embeddings nor output.
    fn any_of_layers(
        &self,
        tensors: &[TensorDesc],
        is: impl Fn(&TensorDesc, GgmlType) -> bool,
    ) -> bool {
        let of_layer =
            |t: &TensorDesc| !matches!(Role::of(&t.name), Role::Output | Role::TokenEmbd);
        tensors.iter().zip(&self.types).any(|(t, ty)| of_layer(t) && is(t, *ty))
    }

    /// True if a type was given that is of no use where nothing is known of the columns.
    pub fn needs_imatrix(&self, tensors: &[TensorDesc]) -> bool {
        let file = FileType::from_number(self.file_type);
        let needs = |(t, ty): (&TensorDesc, &GgmlType)| {
            *ty != t.ty && file.is_some_and(|f| mix::needs_imatrix(Role::of(&t.name), *ty, f))
        };
        tensors.iter().zip(&self.types).any(needs)
    }

    /// Bytes of the tensors' data.
    pub fn n_bytes(&self, tensors: &[TensorDesc]) -> u64 {
        let bytes = |(tensor, ty): (&TensorDesc, &GgmlType)| n_bytes(tensor, *ty);
        tensors.iter().zip(&self.types).map(bytes).sum()
    }

    /// Bits for each weight, vectors included.
    pub fn bits_per_weight(&self, tensors: &[TensorDesc]) -> f64 {
        let values: u64 = tensors.iter().map(TensorDesc::n_values).sum();
        self.n_bytes(tensors) as f64 * 8.0 / values.max(1) as f64
    }
}

/// True if a tensor that becomes `ty` is quantized with feedback, where there is a sketch of its input.
pub(crate) fn recodes(tensor: &TensorDesc, ty: GgmlType, table: &KernelTable) -> bool {
    ty != tensor.ty && table.can_recode(ty) && tensor.shape.len() == 2
}

/// Bytes of a tensor in a type whose blocks its rows are whole ones of.
pub fn n_bytes(tensor: &TensorDesc, ty: GgmlType) -> u64 {
    ty.row_bytes(tensor.cols()).unwrap_or(0) as u64 * tensor.rows()
}

/// The type that the options ask for.
fn wanted(tensor: &TensorDesc, mix: &Mix<'_>, tied: bool, options: &PlanOptions) -> GgmlType {
    let base = options.file_type.base;
    if !mix::is_quantized(tensor) {
        return tensor.ty;
    }
    if let Some(ty) = options.named(tensor, tied) {
        return ty;
    }
    if options.pure { base } else { mix.choose(tensor) }
}

/// Refuses what would be of no use.
fn check(
    source: &dyn Source,
    types: &[GgmlType],
    options: &PlanOptions,
    table: &KernelTable,
) -> Result<()> {
    let pairs = || source.tensors().iter().zip(types.iter().copied());
    let named = |found: &dyn Fn(&TensorDesc, GgmlType) -> bool| -> Vec<String> {
        pairs()
            .filter(|(t, ty)| found(t, *ty))
            .map(|(t, ty)| format!("{} ({ty})", t.name))
            .collect()
    };
    let unwritten = named(&|t, ty| ty != t.ty && !table.can_quantize(ty));
    if !unwritten.is_empty() {
        let reason = format!("there is no quantizer for {}", some(&unwritten));
        return Err(Error::Invalid(reason));
    }
    let again = named(&|t, ty| ty != t.ty && !is_float(t.ty) && !is_float(ty));
    if !again.is_empty() && !options.requantize {
        return Err(Error::Invalid(format!(
            "{} has tensors that are quantized already, and quantizing them again loses more than \
             quantizing the original once: {}. Take the original, or allow it with \
             --allow-requantize",
            source.path().display(),
            some(&again)
        )));
    }
    let file = options.file_type;
    let blind = named(&|t, ty| ty != t.ty && mix::needs_imatrix(Role::of(&t.name), ty, file));
    if !blind.is_empty() && !options.imatrix && !options.calibrated {
        return Err(Error::Invalid(format!(
            "types this small need an importance matrix (--imatrix FILE, which `siskin imatrix` \
             makes, or --calibrate full): {}",
            some(&blind)
        )));
    }
    Ok(())
}
