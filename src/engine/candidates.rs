//! Tokens that may still be drawn, and the filters that thin them out: llama.cpp's definitions
//! (`src/llama-sampler.cpp`), with sums in f64 in a fixed order and ties settled by the lower id.

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub id: u32,
    /// Its logit, finite.
    pub logit: f32,
}

/// The list that filters work on. Ascending by id until a filter sorts it by logit, descending.
#[derive(Default)]
pub struct Candidates {
    list: Vec<Candidate>,
    is_sorted: bool,
    /// Scratch: probabilities, as long as `list`.
    weights: Vec<f64>,
}

impl Candidates {
    /// Starts over with candidates in ascending order of id.
    pub fn fill(&mut self, candidates: impl Iterator<Item = Candidate>) {
        self.list.clear();
        self.list.extend(candidates);
        self.is_sorted = false;
    }

    /// What is left.
    #[must_use]
    pub fn as_slice(&self) -> &[Candidate] {
        &self.list
    }

    /// Keeps the `k` largest; 0 = off.
    pub fn top_k(&mut self, k: usize) {
        if k == 0 {
            return;
        }
        if !self.is_sorted && k < self.list.len() {
            self.list.select_nth_unstable_by(k - 1, descending);
            self.list.truncate(k);
        }
        self.sort();
        self.list.truncate(k);
    }

    /// Keeps logits of at least max - n * standard deviation; not positive = off.
    pub fn top_n_sigma(&mut self, n: f64) {
        if n <= 0.0 || self.list.len() < 2 {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a vocabulary is far below 2^53")]
        let count = self.list.len() as f64;
        let mean = self.list.iter().map(|c| f64::from(c.logit)).sum::<f64>() / count;
        let squares = self.list.iter().map(|c| (f64::from(c.logit) - mean).powi(2));
        let sigma = (squares.sum::<f64>() / count).sqrt();
        let least = self.max() - n * sigma;
        self.list.retain(|c| f64::from(c.logit) >= least);
    }

    /// Locally typical sampling: keeps those whose surprise is nearest to the entropy, until their
    /// probabilities exceed `p`; 1 and more = off.
    pub fn typical_p(&mut self, p: f64) {
        if p >= 1.0 || self.list.len() < 2 {
            return;
        }
        self.softmax();
        let entropy: f64 =
            self.weights.iter().map(|&w| if w > 0.0 { -w * w.ln() } else { 0.0 }).sum();
        let mut order: Vec<(f64, f64, Candidate)> = self
            .list
            .iter()
            .zip(&self.weights)
            .map(|(&c, &w)| ((-w.ln() - entropy).abs(), w, c))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.id.cmp(&b.2.id)));
        let mut sum = 0.0;
        let last = order.iter().position(|(_, weight, _)| {
            sum += weight;
            sum > p
        });
        order.truncate(last.map_or(order.len(), |last| last + 1));
        self.list.clear();
        self.list.extend(order.into_iter().map(|(_, _, candidate)| candidate));
        self.is_sorted = false;
    }

    /// Nucleus: keeps the fewest whose probabilities reach `p`, at least one; 1 and more = off.
    pub fn top_p(&mut self, p: f64) {
        if p >= 1.0 {
            return;
        }
        self.sort();
        self.softmax();
        let mut sum = 0.0;
        let last = self.weights.iter().position(|weight| {
            sum += weight;
            sum >= p
        });
        self.list.truncate(last.map_or(self.list.len(), |last| last + 1));
    }

    /// Keeps those at least `p` times as likely as the likeliest; not positive = off.
    pub fn min_p(&mut self, p: f64) {
        if p <= 0.0 {
            return;
        }
        let least = self.max() + p.min(1.0).ln();
        self.list.retain(|c| f64::from(c.logit) >= least);
    }

    /// Exclude top choices: of those at least `threshold` likely, drops all but the last.
    pub fn xtc(&mut self, threshold: f64) {
        if threshold > 0.5 || self.list.len() < 2 {
            return;
        }
        self.sort();
        self.softmax();
        let count = self.weights.iter().take_while(|weight| **weight >= threshold).count();
        if count > 1 {
            self.list.drain(..count - 1);
        }
    }

    /// Draws one with a uniform number in [0, 1); none if nothing is left.
    pub fn pick(&mut self, temperature: f64, uniform: f64) -> Option<u32> {
        let max = self.max();
        self.weights.clear();
        let weight = |c: &Candidate| ((f64::from(c.logit) - max) / temperature).exp();
        self.weights.extend(self.list.iter().map(weight));
        let wanted = uniform * self.weights.iter().sum::<f64>();
        let mut sum = 0.0;
        for (candidate, weight) in self.list.iter().zip(&self.weights) {
            sum += weight;
            if wanted < sum {
                return Some(candidate.id);
            }
        }
        // Only rounding leads here: `wanted` met the very end of the sum.
        self.list.last().map(|candidate| candidate.id)
    }

    fn sort(&mut self) {
        if !self.is_sorted {
            self.list.sort_unstable_by(descending);
            self.is_sorted = true;
        }
    }

    fn max(&self) -> f64 {
        self.list.iter().map(|c| f64::from(c.logit)).fold(f64::NEG_INFINITY, f64::max)
    }

    /// Probabilities of the list, in its order.
    fn softmax(&mut self) {
        let max = self.max();
        self.weights.clear();
        self.weights.extend(self.list.iter().map(|c| (f64::from(c.logit) - max).exp()));
        let sum: f64 = self.weights.iter().sum();
        for weight in &mut self.weights {
            *weight /= sum;
        }
    }
}

fn descending(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    let order = b.logit.partial_cmp(&a.logit).unwrap_or(std::cmp::Ordering::Equal);
    order.then(a.id.cmp(&b.id))
}
