//! Any bytes as an importance matrix, in either format.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use siskin_convert::Imatrix;

fuzz_target!(|data: &[u8]| {
    let imatrix = match Imatrix::from_bytes(data.to_vec()) {
        Ok(imatrix) => imatrix,
        Err(e) => {
            black_box(e.to_string());
            return;
        }
    };
    black_box(imatrix.chunk_count());
    for (name, entry) in imatrix.entries() {
        let n = entry.sums().len();
        let means = imatrix.importance(name, n).expect("as many as there are");
        assert!(means.is_some_and(|means| means.iter().all(|x| x.is_finite() && *x >= 0.0)));
        assert!(imatrix.importance(name, n + 1).is_err());
        black_box(entry.statistics());
        // Of what is not a sketch, no more than an error.
        let _ = black_box(imatrix.feedback(name));
    }
    let mut twice = imatrix.clone();
    if twice.merge(&imatrix).is_ok() {
        assert_eq!(twice.entries().len(), imatrix.entries().len());
    }
});
