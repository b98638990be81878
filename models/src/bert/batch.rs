//! The items of a batch end to end, as the engines of `sconce-kernels` take them.

use sconce_kernels::encoder::PackedTokens;

/// The tokens of a batch, end to end.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) ids: Vec<u32>,
    pub(super) segments: Vec<u32>,
    pub(super) lengths: Vec<usize>,
}

impl Batch {
    pub(super) fn pack<'a>(&mut self, items: impl Iterator<Item = (&'a [u32], &'a [u32])>) {
        self.ids.clear();
        self.segments.clear();
        self.lengths.clear();
        for (ids, segments) in items {
            self.ids.extend_from_slice(ids);
            self.segments.extend_from_slice(segments);
            self.lengths.push(ids.len());
        }
    }

    pub(super) fn tokens(&self) -> PackedTokens<'_> {
        PackedTokens { ids: &self.ids, segments: &self.segments, lengths: &self.lengths }
    }
}
