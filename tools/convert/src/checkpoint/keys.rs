//! Metadata: keys with values of the types that GGUF files have.

use siskin::gguf::{Builder, Bytes};

use crate::Result;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Setting {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    /// Tokens, which may be no UTF-8.
    Texts(Vec<Vec<u8>>),
    U8s(Vec<u8>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

macro_rules! from {
    ($($ty:ty = $name:ident),*) => { $(
        impl From<$ty> for Setting {
            fn from(value: $ty) -> Setting {
                Setting::$name(value)
            }
        }
    )* };
}

from!(u32 = U32, f32 = F32, bool = Bool, String = Str, Vec<String> = Strs, Vec<Vec<u8>> = Texts);
from!(i32 = I32, Vec<u8> = U8s, Vec<i32> = I32s, Vec<f32> = F32s);

impl From<&str> for Setting {
    fn from(value: &str) -> Setting {
        Setting::Str(value.to_string())
    }
}

/// Keys in the order in which they are written; each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pairs: Vec<(String, Setting)>,
}

impl Keys {
    /// Sets a key, in its place if it is there.
    pub(super) fn set(&mut self, key: impl Into<String>, value: impl Into<Setting>) {
        let (key, value) = (key.into(), value.into());
        match self.pairs.iter_mut().find(|(k, _)| *k == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key, value)),
        }
    }

    /// Sets a key if there is a value.
    pub(super) fn set_opt(&mut self, key: impl Into<String>, value: Option<impl Into<Setting>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// Adds all of them.
    pub(super) fn put(&self, to: &mut Builder) -> Result<()> {
        for (key, value) in &self.pairs {
            match value {
                Setting::U32(x) => to.put(key, x),
                Setting::I32(x) => to.put(key, x),
                Setting::F32(x) => to.put(key, x),
                Setting::Bool(x) => to.put(key, x),
                Setting::Str(x) => to.put(key, x),
                Setting::Strs(x) => to.put(key, x),
                Setting::Texts(x) => {
                    to.put(key, &x.iter().map(|text| Bytes(text)).collect::<Vec<_>>())
                }
                Setting::U8s(x) => to.put(key, x),
                Setting::I32s(x) => to.put(key, x),
                Setting::F32s(x) => to.put(key, x),
            }?;
        }
        Ok(())
    }
}
