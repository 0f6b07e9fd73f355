//! How large a pass may be: rows of prompts, a row for each generation beside them, rows of logits.
//! What a small budget must hold is one generation; more come where there is room.

use super::Request;
use super::context::Context;
use crate::plan::Plan;

/// Rows of a pass at most.
pub const ROWS_MAX: usize = 512;
/// Activations take at most this part of the budget, unless fewer than [`ROWS_MIN`] rows fit then.
const ACTIVATION_SHARE: u64 = 16;
/// Fewer prompt rows than this a pass waste the weights that are read for them.
const ROWS_MIN: usize = 16;
/// Generations and rows of logits beyond the least take at most this part.
const BESIDE_SHARE: u64 = 32;

/// What passes may and must take.
pub struct Passes {
    /// Bytes of a row.
    row: u64,
    /// Bytes of a row's logits.
    selected: u64,
    rows_least: usize,
    rows_most: usize,
    generations_least: usize,
    generations_most: usize,
    logits_most: usize,
}

/// How large they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Prompt rows.
    pub rows: usize,
    /// Generations stepped together.
    pub generations: usize,
    /// Rows of logits beside one for each generation.
    pub logits_rows: usize,
}

impl Passes {
    /// From what was asked for. A pass writes a token of the KV cache for every row and a page for
    /// every generation, so a short context bounds both.
    pub fn of(plan: &Plan, request: &Request, context: &Context) -> Self {
        let (tokens, pages) = (context.most_tokens(), context.most_pages());
        let rows_most = request.rows.unwrap_or(ROWS_MAX).min(tokens).max(1);
        let generations_most = request.generations.min(pages).max(1);
        Passes {
            row: request.row_bytes.max(plan.n_embd as u64 * 4),
            selected: request.selected_bytes.max(plan.n_vocab as u64 * 4),
            rows_least: request.rows.unwrap_or(ROWS_MIN).clamp(1, rows_most),
            rows_most,
            generations_least: request.generations_least.clamp(1, generations_most),
            generations_most,
            logits_most: request.logits_rows.min(tokens),
        }
    }

    /// The smallest that work.
    pub fn least(&self) -> Size {
        let (rows, generations) = (self.rows_least, self.generations_least);
        Size { rows, generations, logits_rows: 0 }
    }

    /// Bytes of activations.
    pub fn bytes(&self, size: Size) -> u64 {
        let rows = (size.rows as u64).saturating_add(size.generations as u64);
        let selected = (size.generations as u64).saturating_add(size.logits_rows as u64);
        rows.saturating_mul(self.row).saturating_add(selected.saturating_mul(self.selected))
    }

    /// Takes what passes should have of a budget out of what is left of it beyond the least.
    pub fn take(&self, limit: u64, spare: &mut u64) -> Size {
        let mut size = self.least();
        let count =
            |bytes: u64, each: u64| usize::try_from(bytes / each.max(1)).unwrap_or(usize::MAX);
        let wish = (self.rows_most - self.rows_least) as u64 * self.row;
        let share = (limit / ACTIVATION_SHARE).saturating_sub(self.rows_least as u64 * self.row);
        let room = share.min(wish).min(*spare);
        size.rows += count(room, self.row);
        *spare -= room;
        let each = self.row + self.selected;
        let more = (self.generations_most - self.generations_least) as u64 * each;
        let wish = more + self.logits_most as u64 * self.selected;
        let room = (limit / BESIDE_SHARE).min(wish).min(*spare);
        size.generations += count(room.min(more), each);
        size.logits_rows = count(room - room.min(more), self.selected);
        *spare -= room;
        size
    }
}
