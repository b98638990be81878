//! Batches as the engines of `sconce-kernels` take them.

use sconce_kernels::encoder::PackedTokens;

use super::Tokens;

/// The tokens of all texts of a batch, end to end.
#[derive(Default)]
pub(crate) struct PackedBatch {
    pub(crate) ids: Vec<u32>,
    pub(crate) segments: Vec<u32>,
    pub(crate) lengths: Vec<usize>,
}

impl PackedBatch {
    pub(crate) fn pack<'a>(&mut self, texts: impl Iterator<Item = Tokens<'a>>) {
        self.ids.clear();
        self.segments.clear();
        self.lengths.clear();
        for Tokens { ids, segments } in texts {
            self.ids.extend_from_slice(ids);
            self.segments.extend_from_slice(segments);
            self.lengths.push(ids.len());
        }
    }

    pub(crate) fn tokens(&self) -> PackedTokens<'_> {
        PackedTokens { ids: &self.ids, segments: &self.segments, lengths: &self.lengths }
    }
}
