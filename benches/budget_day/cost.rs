//! What a decision costs when many hotels wait.
//!
//! In: how many wait. Out: the time of one decision beside that with ten, in the same round. Instructions of the same are
//! counted in `benches/instructions/`; this knows of the cache, too.

use std::time::Duration;

use tokio::runtime::Builder;

use crate::crowd::{Crowd, TOGETHER};
use crate::kit::section::Section;
use crate::kit::{Sentence, median};

/// How many hotels wait.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

/// The seconds of one decision.
async fn time(crowd: &mut Crowd, windows: usize) -> f64 {
    let mut taken = Duration::ZERO;
    for _ in 0..windows {
        crowd.window_passes().await;
        let before = std::time::Instant::now();
        crowd.decide();
        taken += before.elapsed();
    }
    taken.as_secs_f64() / (windows * TOGETHER) as f64
}

/// Times all sizes in turns; the ratios are of the same round.
///
/// # Errors
/// When there can be no runtime.
pub(crate) fn measure(quick: bool) -> Result<(Section, Vec<f64>), Sentence> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let (rounds, windows) = if quick { (3, 200) } else { (15, 2_000) };
    let times: Vec<Vec<f64>> = runtime.block_on(async {
        let mut crowds = Vec::new();
        for hotels in SIZES {
            crowds.push(Crowd::of(hotels).await);
        }
        let mut times = vec![Vec::new(); SIZES.len()];
        for _ in 0..rounds {
            for (crowd, times) in crowds.iter_mut().zip(&mut times) {
                times.push(time(crowd, windows).await);
            }
        }
        times
    });
    let mut section = Section::new(
        "Time of one decision beside that with ten hotels waiting, median of the rounds",
        &["hotels waiting", "ratio"],
    );
    let mut ratios = Vec::new();
    for (hotels, times_of) in SIZES.iter().zip(&times) {
        let beside: Vec<f64> = times_of.iter().zip(&times[0]).map(|(time, ten)| time / ten).collect();
        let ratio = median(&beside).unwrap_or(f64::NAN);
        section.row([hotels.to_string(), format!("{ratio:.2}")]);
        ratios.push(ratio);
    }
    Ok((section, ratios))
}
