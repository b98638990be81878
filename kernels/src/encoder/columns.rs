//! The plan for few sequences: all threads share each product by its columns, and attention by its heads.
//!
//! Each part computes the rows that every thread needs whole (norms, quantised rows) for itself, which is cheaper than
//! waiting for another thread once more.

use std::sync::{Mutex, MutexGuard};

use super::scratch::{PartScratch, Scratch, Shared};
use super::sequences::rows_of;
use super::{Encoder, EncoderLayer, PackedTokens};
use crate::linear::{Activation, Linear, share_of};
use crate::rows::{Rows, RowsMut, SharedRows};
use crate::{Team, attention};

pub(super) fn forward(
    encoder: &Encoder,
    team: &Team,
    scratch: &mut Scratch,
    tokens: PackedTokens<'_>,
    mut out: RowsMut<'_, f32>,
) {
    let count = tokens.ids.len();
    let Scratch { by_part, shared, .. } = scratch;
    by_part.resize_with(team.threads().get().max(by_part.len()), Mutex::default);
    for part in by_part.iter_mut() {
        part.get_mut().expect("nothing panics while it is locked").reserve_columns(encoder, count);
    }
    shared.reserve(encoder, count);
    let batch = Batch { encoder, team, by_part, lengths: tokens.lengths, count };

    let Some(last) = encoder.layers.len().checked_sub(1) else {
        embed(encoder, tokens, out);
        return;
    };
    for (index, layer) in encoder.layers.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &encoder.layers[before]);
        batch.query_key_value(layer, before, tokens, shared);
        batch.attention(shared);
        batch.attention_output(layer, shared);
        batch.up(layer, shared);
        batch.down(layer, shared);
    }
    let mut part = batch.lock(0);
    batch.finish_layer(&encoder.layers[last], &mut part, shared.projected.rows(count));
    let x = part.x.rows(count);
    for row in 0..count {
        out.row(row).copy_from_slice(x.row(row));
    }
}

fn embed(encoder: &Encoder, tokens: PackedTokens<'_>, mut x: RowsMut<'_, f32>) {
    for rows in rows_of(tokens.lengths) {
        let (ids, segments) = (&tokens.ids[rows.clone()], &tokens.segments[rows.clone()]);
        encoder.embeddings.embed(encoder.isa, ids, segments, x.part(rows, 0..encoder.hidden));
    }
}

struct Batch<'a> {
    encoder: &'a Encoder,
    team: &'a Team,
    by_part: &'a [Mutex<PartScratch>],
    lengths: &'a [usize],
    count: usize,
}

impl Batch<'_> {
    fn lock(&self, part: usize) -> MutexGuard<'_, PartScratch> {
        // A panic ends the whole batch, and the next batch overwrites this part's buffers.
        self.by_part[part].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Finishes the layer before, or embeds the tokens; then computes query, key and value.
    fn query_key_value(
        &self,
        layer: &EncoderLayer,
        before: Option<&EncoderLayer>,
        tokens: PackedTokens<'_>,
        shared: &mut Shared,
    ) {
        let projected = shared.projected.rows(self.count);
        let out = shared.query_key_value.rows_mut(self.count).share();
        self.each_part(|part, parts, scratch| {
            match before {
                Some(before) => self.finish_layer(before, scratch, projected),
                None => embed(self.encoder, tokens, scratch.x.rows_mut(self.count)),
            }
            let PartScratch { x, quantized, weights, .. } = scratch;
            let input = self.encoder.input(&layer.query_key_value, x.rows(self.count), quantized);
            self.product(&layer.query_key_value, Activation::Identity, input, weights, &out, part, parts);
        });
    }

    fn attention(&self, shared: &mut Shared) {
        let packed = shared.query_key_value.rows(self.count);
        let out = shared.attended.rows_mut(self.count).share();
        let (heads, hidden) = (self.encoder.heads, self.encoder.hidden);
        self.each_part(|part, parts, scratch| {
            let which = share_of(heads, part, parts);
            let columns = which.start * hidden / heads..which.end * hidden / heads;
            // SAFETY: each part is run once, and the columns of different heads do not overlap.
            let mut out = unsafe { out.part(0..self.count, columns.clone()) };
            for rows in rows_of(self.lengths) {
                let out = out.part(rows.clone(), 0..columns.len());
                let packed = packed.part(rows, 0..3 * hidden);
                attention::attend(self.encoder.isa, packed, heads, which.clone(), out, &mut scratch.head);
            }
        });
    }

    fn attention_output(&self, layer: &EncoderLayer, shared: &mut Shared) {
        let attended = shared.attended.rows(self.count);
        let out = shared.projected.rows_mut(self.count).share();
        self.each_part(|part, parts, PartScratch { quantized, weights, .. }| {
            let input = self.encoder.input(&layer.attention_output, attended, quantized);
            self.product(&layer.attention_output, Activation::Identity, input, weights, &out, part, parts);
        });
    }

    /// Computes the norm after attention, and the product after it.
    fn up(&self, layer: &EncoderLayer, shared: &mut Shared) {
        let projected = shared.projected.rows(self.count);
        let out = shared.inner.rows_mut(self.count).share();
        self.each_part(|part, parts, PartScratch { x, middle, quantized, weights, .. }| {
            let (x, isa) = (x.rows(self.count), self.encoder.isa);
            layer.attention_norm.forward_rows(isa, projected, x, middle.rows_mut(self.count));
            let input = self.encoder.input(&layer.up, middle.rows(self.count), quantized);
            self.product(&layer.up, layer.activation, input, weights, &out, part, parts);
        });
    }

    fn down(&self, layer: &EncoderLayer, shared: &mut Shared) {
        let inner = shared.inner.rows(self.count);
        let out = shared.projected.rows_mut(self.count).share();
        self.each_part(|part, parts, PartScratch { quantized, weights, .. }| {
            let input = self.encoder.input(&layer.down, inner, quantized);
            self.product(&layer.down, Activation::Identity, input, weights, &out, part, parts);
        });
    }

    /// Computes the norm at the end of a layer, from `middle` to `x`.
    fn finish_layer(&self, layer: &EncoderLayer, scratch: &mut PartScratch, projected: Rows<'_, f32>) {
        let PartScratch { x, middle, .. } = scratch;
        let (middle, x) = (middle.rows(self.count), x.rows_mut(self.count));
        layer.output_norm.forward_rows(self.encoder.isa, projected, middle, x);
    }

    /// Runs one stage on all threads and waits for them, so that the next stage sees everything that this one writes.
    fn each_part(&self, work: impl Fn(usize, usize, &mut PartScratch) + Sync) {
        let parts = self.team.threads().get();
        self.team.run_stage(parts, &|part| work(part, parts, &mut self.lock(part)));
    }

    /// Computes this part's columns of a product.
    #[expect(clippy::too_many_arguments, reason = "the parts of a scratch are borrowed one by one")]
    fn product(
        &self,
        linear: &Linear,
        activation: Activation,
        input: crate::linear::LinearInput<'_>,
        weights: &mut crate::aligned::Aligned<f32>,
        out: &SharedRows<'_, f32>,
        part: usize,
        of: usize,
    ) {
        let panels = share_of(linear.panels(), part, of);
        if panels.is_empty() {
            return;
        }
        // SAFETY: each part is run once, and the columns of different parts do not overlap.
        let out = unsafe { out.part(0..self.count, linear.columns_of(panels.clone())) };
        linear.forward_panels(input, panels, out, activation, weights);
    }
}

impl PartScratch {
    fn reserve_columns(&mut self, encoder: &Encoder, tokens: usize) {
        self.x.resize(tokens, encoder.hidden);
        self.middle.resize(tokens, encoder.hidden);
    }
}

impl Shared {
    fn reserve(&mut self, encoder: &Encoder, tokens: usize) {
        self.query_key_value.resize(tokens, 3 * encoder.hidden);
        self.attended.resize(tokens, encoder.hidden);
        self.projected.resize(tokens, encoder.hidden);
        self.inner.resize(tokens, encoder.inner);
    }
}
