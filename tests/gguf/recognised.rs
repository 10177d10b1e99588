//! What people have instead of a model is told to them.

use std::io::Write;

use siskin::Error;
use siskin::gguf::GgufFile;

#[test]
fn a_file_of_another_kind_is_named() {
    let safetensors = b"\x40\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"}}";
    let mut tar = vec![b'x'; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: &[(&[u8], &str)] = &[
        (b"", "is empty"),
        (b"GGU", "ends within the first four bytes"),
        (b"<!DOCTYPE html><html><head><title>404</title>", "HTML page"),
        (b"\n  <html lang=\"en\">", "HTML page"),
        (b"\xef\xbb\xbf<!-- page --><HTML>", "HTML page"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "XML document"),
        (b"{\"error\":\"Invalid credentials\"}", "JSON document"),
        (b"Entry not found", "is a text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "git lfs pull"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\x03\x04\0\0", "zip archive"),
        (b"\x28\xb5\x2f\xfd\0", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"BZh91AY", "bzip2"),
        (&tar, "tar archive"),
        (safetensors, "safetensors checkpoint"),
        (b"lmgg\0\0\0\0", "GGML file"),
        (b"fmgg\x01\0\0\0", "GGMF file"),
        (b"tjgg\x03\0\0\0", "GGJT file"),
        (b"algg\x01\0\0\0", "GGLA adapter"),
        (b"FUGG\x03\0\0\0", "turned round"),
        (b"\x80\x02\x8a\x0al", "pickle"),
        (b"\x7fELF\x02", "program"),
        (&[0; 4096], "zeros"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08\x09", "does not begin with the letters GGUF"),
    ];
    for (bytes, want) in cases {
        match GgufFile::from_bytes(bytes.to_vec()) {
            Err(Error::Gguf { offset: 0, reason, .. }) => {
                assert!(reason.contains(want), "`{want}` not in `{reason}`");
                assert!(reason.contains("not a GGUF file"), "{reason}");
            }
            other => panic!("{want}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_is_opened_is_recognised_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let mut file = std::fs::File::create(&path).expect("a file");
    let empty = GgufFile::open(&path).expect_err("empty").to_string();
    assert!(empty.contains("model.gguf: at byte 0") && empty.contains("is empty"), "{empty}");
    file.write_all(b"<!doctype html>\n<html>").expect("written");
    let html = GgufFile::open(&path).expect_err("HTML").to_string();
    assert!(html.contains("model.gguf: at byte 0") && html.contains("HTML"), "{html}");
    let of_folder = GgufFile::open(folder.path()).expect_err("a folder").to_string();
    assert!(of_folder.contains("is a directory"), "{of_folder}");
    let missing = GgufFile::open(folder.path().join("none.gguf")).expect_err("missing");
    assert!(matches!(missing, Error::Io { .. }) && missing.to_string().contains("none.gguf"));
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_refused_without_waiting() {
    let error = GgufFile::open("/dev/zero").expect_err("a device").to_string();
    assert!(error.contains("not a regular file"), "{error}");
}
