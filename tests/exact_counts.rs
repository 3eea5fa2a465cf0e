//! What comes out is what went in: every counter of every pair, against sums that share no code with the program.
#![allow(clippy::unwrap_used)]

mod support;

use support::oracle::{self, Records};
use support::site::Site;
use support::{capture, tools};

#[test]
fn every_counter_of_every_pair_is_the_sum_of_the_agents_own_logs() {
    let Some(sums) = oracle::sums() else {
        return tools::skip("exact_counts", "no python3 for the independent sums");
    };
    let site = Site::two_subnets();
    let program = site.start();
    capture::send_all(&program);
    program.finish();
    let export = site.export();
    assert_eq!(oracle::exported(&export), sums.pairs);
    let records = Records::of(&export);
    assert_eq!(records.accounted, sums.records);
    assert!(records.refused().is_empty(), "{records:?}");
}

#[test]
fn the_independent_sums_are_the_published_ones_of_the_capture() {
    let Some(sums) = oracle::sums() else {
        return tools::skip("exact_counts", "no python3 for the independent sums");
    };
    let of = |pair: &str, names: [&str; 6]| names.map(|name| sums.pairs[pair][name]);
    let names = ["bytes", "segments", "retransmits.syn", "retransmits.established", "retransmits.close", "connects"];
    assert_eq!(of("subnet-a>subnet-b", names), [146_041_455, 106_604, 12, 2_604, 13, 14]);
    assert_eq!(of("subnet-b>subnet-a", names), [396_093, 3_959, 12, 2, 9, 789]);
    assert_eq!(of("subnet-a>subnet-a", names), [27_656_444, 19_210, 0, 1, 0, 2]);
    assert_eq!(sums.pairs["subnet-a>subnet-b"]["connect_failures"], 7);
}

#[test]
fn a_stop_without_end_of_input_loses_nothing() {
    let Some(sums) = oracle::sums() else {
        return tools::skip("exact_counts", "no python3 for the independent sums");
    };
    let mut site = Site::two_subnets();
    site.drain = false;
    let posts = capture::posts();
    let (before, after) = posts.split_at(posts.len() / 2);
    for part in [before, after] {
        let program = site.start();
        for post in part {
            assert_eq!(post.send(&program).unwrap().status, 200);
        }
        program.finish();
    }
    site.drain = true;
    site.start().finish();
    let export = site.export();
    assert_eq!(oracle::exported(&export), sums.pairs);
    assert!(Records::of(&export).refused().is_empty());
}

#[test]
fn a_drained_data_folder_takes_nothing_new_and_says_so() {
    let site = Site::two_subnets();
    let program = site.start();
    let posts = capture::posts();
    let (first, rest) = posts.split_at(10);
    for post in first {
        assert_eq!(post.send(&program).unwrap().status, 200);
    }
    program.finish();
    let before = site.export();
    // Everything after the end of time would be late: refused at the door, not taken and lost.
    let again = site.start();
    let answers = rest[..3].iter().map(|post| post.send(&again));
    let taken = answers.flatten().filter(|answer| answer.status == 200).count();
    let ended = again.ended();
    assert!(ended.status.success(), "{:?}", ended.status);
    assert_eq!(taken, 0);
    assert_eq!(site.export(), before);
}
