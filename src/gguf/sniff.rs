//! What a file is that is no GGUF file: most users who see the message have one of these.

/// What stands at the beginning of a file, and what to tell its user.
const KINDS: &[(&[u8], &str)] = &[
    (b"version https://git-lfs", "is a git-lfs pointer: fetch the file itself with `git lfs pull`"),
    (b"lmgg", "is an old GGML file, from before GGUF: re-convert the model"),
    (b"fmgg", "is an old GGMF file, from before GGUF: re-convert the model"),
    (b"tjgg", "is an old GGJT file, from before GGUF: re-convert the model"),
    (b"algg", "is an old GGLA adapter, from before GGUF: re-convert it"),
    (b"FUGG", "begins with the letters of GGUF turned round, as no writer should leave them"),
    (b"\x1f\x8b", "is a gzip archive: unpack it first"),
    (b"PK\x03\x04", "is a zip archive, as PyTorch checkpoints are: unpack or convert it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it first"),
    (b"\xfd7zXZ\0", "is compressed with xz: unpack it first"),
    (b"BZh", "is compressed with bzip2: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first"),
    (b"\x80\x02", "is a Python pickle, as old PyTorch checkpoints are: convert it to GGUF first"),
    (b"\x7fELF", "is a program"),
];

/// Says what a file is that does not begin with `GGUF`.
pub(super) fn not_gguf(bytes: &[u8]) -> String {
    format!("this is not a GGUF file: it {}", kind(bytes))
}

fn kind(bytes: &[u8]) -> &'static str {
    if bytes.is_empty() {
        return "is empty";
    }
    if b"GGUF".starts_with(bytes) {
        return "ends within the first four bytes";
    }
    if let Some((_, kind)) = KINDS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return kind;
    }
    let head = &bytes[..bytes.len().min(1024)];
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let lower = text.to_ascii_lowercase();
    let has = |what: &[u8]| lower.windows(what.len()).any(|w| w == what);
    if lower.starts_with(b"<") && (has(b"<html") || has(b"<!doctype html")) {
        return "is an HTML page: a web page was saved instead of the model";
    }
    if is_safetensors(bytes) {
        return "is a safetensors checkpoint: convert it to GGUF first";
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return "is a tar archive: unpack it first";
    }
    if text.is_empty() || head.iter().all(|b| *b == 0) {
        return "begins with nothing but zeros or blanks: an unfinished download, perhaps";
    }
    if text.starts_with(b"{") {
        return "is a JSON document: a server's message, or a configuration";
    }
    if text.starts_with(b"<") {
        return "is an XML document: a server's message was saved instead of the model";
    }
    if head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        return "is a text: a server's message, perhaps, was saved instead of the model";
    }
    "does not begin with the letters GGUF"
}

/// The length of a JSON header in 8 bytes, then the header.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, header)) = bytes.split_first_chunk::<8>() else { return false };
    // The format limits the header to 100 MB. The file may be cut short.
    (2..=100_000_000).contains(&u64::from_le_bytes(*length)) && header.starts_with(b"{")
}
