//! The plan for few sequences: all threads share each product by its columns, and attention by its heads.
//!
//! Each thread computes the rows that every thread needs whole (embeddings, norms, quantised rows) for itself, which is
//! cheaper than waiting for another thread once more.

use std::sync::{Mutex, MutexGuard};

use super::scratch::{Matrix, PartScratch, Scratch, StepMatrices, WorkScratch};
use super::sequences::rows_of;
use super::steps::{EncoderStep, StepMatrix};
use super::{Encoder, PackedTokens};
use crate::attention::positions::PositionTables;
use crate::linear::share_of;
use crate::rows::{RowsMut, SharedRows};
use crate::{Team, attention};

pub(super) fn forward(
    encoder: &Encoder,
    team: &Team,
    scratch: &mut Scratch,
    tokens: PackedTokens<'_>,
    out: RowsMut<'_, f32>,
) {
    let count = tokens.ids.len();
    let Scratch { by_part, shared, positions, .. } = scratch;
    by_part.resize_with(team.threads().get().max(by_part.len()), Mutex::default);
    let Encoder { parts, steps, .. } = encoder;
    for part in by_part.iter_mut() {
        let part = part.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        part.matrices.reserve(parts, steps, |matrix| (!matrix.is_shared()).then_some(count));
    }
    shared.reserve(parts, steps, |matrix| matrix.is_shared().then_some(count));
    let batch = Batch { encoder, team, by_part, positions, tokens, count };

    // Steps since the last shared one, which each thread computes for itself before the next.
    let mut own = 0;
    for (index, step) in steps.list.iter().enumerate() {
        if step.to().is_shared() {
            batch.share(&steps.list[own..index], *step, shared);
            own = index + 1;
        }
    }
    let mut part = batch.lock(0);
    for step in &steps.list[own..] {
        batch.own_step(*step, &mut part, shared);
    }
    encoder.finish(part.matrices[StepMatrix::X].rows(count, parts.hidden), out);
}

struct Batch<'a> {
    encoder: &'a Encoder,
    team: &'a Team,
    by_part: &'a [Mutex<PartScratch>],
    positions: &'a PositionTables,
    tokens: PackedTokens<'a>,
    count: usize,
}

impl Batch<'_> {
    fn lock(&self, part: usize) -> MutexGuard<'_, PartScratch> {
        // A panic ends the whole batch, and the next batch overwrites this part's buffers.
        self.by_part[part].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs one stage on all threads and waits for them, so that the next stage sees everything that this one writes:
    /// the steps that each thread computes for itself, then its share of one step.
    fn share(&self, own: &[EncoderStep], step: EncoderStep, shared: &mut StepMatrices) {
        let parts = self.team.threads().get();
        // Taken out, so that the others can be read.
        let mut taken = std::mem::take(&mut shared[step.to()]);
        let to = taken.rows_mut(self.count, self.encoder.parts.columns_of(step)).share();
        let others = &*shared;
        self.team.run_stage(parts, &|part| {
            let mut scratch = self.lock(part);
            for step in own {
                self.own_step(*step, &mut scratch, others);
            }
            match step {
                EncoderStep::Product { .. } => self.product(step, (part, parts), &mut scratch, others, &to),
                EncoderStep::Attend { heads } => self.attend(heads, (part, parts), &mut scratch.work, others, &to),
                EncoderStep::Embed { .. } | EncoderStep::Norm { .. } => unreachable!("threads compute them alone"),
            }
        });
        shared[step.to()] = taken;
    }

    /// Computes all rows of a step that writes a matrix of this thread's own.
    fn own_step(&self, step: EncoderStep, scratch: &mut PartScratch, shared: &StepMatrices) {
        let (matrices, columns) = (&mut scratch.matrices, self.encoder.parts.columns_of(step));
        let mut taken = std::mem::take(&mut matrices[step.to()]);
        let to = taken.rows_mut(self.count, columns);
        match step {
            EncoderStep::Embed { .. } => self.encoder.embed(self.tokens, to),
            EncoderStep::Norm { x, residual, norm, .. } => {
                let of = |matrix| matrix_of(matrices, shared, matrix).rows(self.count, columns);
                self.encoder.norm(norm, of(x), residual.map(of), to);
            }
            EncoderStep::Product { .. } | EncoderStep::Attend { .. } => unreachable!("threads share them"),
        }
        matrices[step.to()] = taken;
    }

    /// Computes this part's columns of a product.
    fn product(
        &self,
        step: EncoderStep,
        (part, parts): (usize, usize),
        scratch: &mut PartScratch,
        shared: &StepMatrices,
        out: &SharedRows<'_, f32>,
    ) {
        let EncoderStep::Product { x, linear, activation, .. } = step else { return };
        let linear = &self.encoder.parts.linears[linear];
        let panels = share_of(linear.panels(), part, parts);
        if panels.is_empty() {
            return;
        }
        let PartScratch { matrices, work: WorkScratch { quantized, weights, .. } } = scratch;
        let x = matrix_of(matrices, shared, x).rows(self.count, linear.inputs());
        let input = self.encoder.input(linear, x, quantized);
        // SAFETY: each part is run once, and the columns of different parts do not overlap.
        let out = unsafe { out.part(0..self.count, linear.columns_of(panels.clone())) };
        linear.forward_panels(input, panels, out, activation, weights);
    }

    /// Computes this part's heads.
    fn attend(
        &self,
        heads: usize,
        (part, parts): (usize, usize),
        work: &mut WorkScratch,
        shared: &StepMatrices,
        out: &SharedRows<'_, f32>,
    ) {
        let (encoder, heads) = (self.encoder, &self.encoder.parts.heads[heads]);
        let which = share_of(heads.queries, part, parts);
        let columns = which.start * heads.size..which.end * heads.size;
        let packed = shared[StepMatrix::QueryKeyValue].rows(self.count, heads.packed_columns());
        // SAFETY: each part is run once, and the columns of different heads do not overlap.
        let mut out = unsafe { out.part(0..self.count, columns.clone()) };
        for rows in rows_of(self.tokens.lengths) {
            let out = out.part(rows.clone(), 0..columns.len());
            let packed = packed.part(rows, 0..heads.packed_columns());
            attention::attend(encoder.isa, packed, heads, self.positions, which.clone(), out, &mut work.head);
        }
    }
}

/// A matrix of the thread's own, or of all threads.
fn matrix_of<'m>(own: &'m StepMatrices, shared: &'m StepMatrices, matrix: StepMatrix) -> &'m Matrix {
    if matrix.is_shared() { &shared[matrix] } else { &own[matrix] }
}
