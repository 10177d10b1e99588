//! The keys and values of a session, layer by layer.

use siskin_quant::attention::{KvLayer, KvShape};

use super::plan::SessionShape;
use crate::{Error, Hparams, Result};

/// One ring of positions for each layer. A layer with a window holds only the window and a batch.
pub struct KvCache {
    pub(crate) layers: Vec<KvLayer>,
}

/// The shape of layer `layer`'s cache.
pub(crate) fn layer_shape(h: &Hparams, s: &SessionShape, layer: usize) -> KvShape {
    let window = h.windows[layer];
    KvShape {
        n_head_kv: h.n_head_kv,
        k_dim: h.k_dim,
        v_dim: h.v_dim,
        // Rounded up to whole chunks by the layer, which leaves room for the chunk's other end.
        capacity: window.saturating_add(s.n_batch).min(s.n_ctx),
        k_type: s.k_type,
        v_type: s.v_type,
    }
}

impl KvCache {
    /// Allocates; pages are touched as positions are used.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a type does not fit the model's heads.
    pub fn new(h: &Hparams, shape: &SessionShape) -> Result<KvCache> {
        let layer = |l| KvLayer::new(&layer_shape(h, shape, l)).map_err(Error::Invalid);
        Ok(KvCache { layers: (0..h.n_layer).map(layer).collect::<Result<_>>()? })
    }

    /// How many positions before `n_past` can be given up so that the next batch still finds what
    /// it attends to in every window.
    pub(crate) fn can_rewind(&self, h: &Hparams, from: usize, to: usize) -> bool {
        self.layers.iter().zip(&h.windows).all(|(layer, window)| {
            let first = (to + 1).saturating_sub(*window);
            from - first <= layer.capacity() || from <= layer.capacity()
        })
    }
}
