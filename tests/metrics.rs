//! A live `/metrics` is clean to promtool, and a real Prometheus scrapes it.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use support::site::Site;
use support::{capture, http, tools};

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn promtool_finds_nothing_to_say_about_live_metrics() {
    let Some(promtool) = tools::promtool() else {
        return tools::skip("metrics", "no promtool");
    };
    let site = Site::two_subnets();
    let program = site.start();
    capture::send_all(&program);
    let metrics = program.metrics();
    std::fs::write(site.path("metrics.txt"), &metrics).unwrap();
    let stdin = std::fs::File::open(site.path("metrics.txt")).unwrap();
    let output = Command::new(promtool).args(["check", "metrics"]).stdin(stdin).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{}\n{said}", output.status);
    // It looked at something: every request so far is in there.
    assert_eq!(program.metric("flowshift_collect_requests_total", &["outcome=\"accepted\""]), 89.0);
    program.finish();
}

#[test]
fn no_label_holds_a_subnet() {
    let site = Site::two_subnets();
    let program = site.start();
    capture::send_all(&program);
    tools::until("records in the pipeline", || {
        (program.metric("flowshift_records_accounted_total", &[]) > 0.0).then_some(())
    });
    let metrics = program.metrics();
    assert!(!metrics.contains("subnet-"), "{metrics}");
    program.finish();
}

#[test]
fn the_pairs_with_the_most_flows_have_series_where_they_are_asked_for() {
    let site = Site::two_subnets().with_settings("[admin]\ntop_pairs = 1\n");
    let program = site.start();
    capture::send_all(&program);
    let ours = ["src_subnet=\"subnet-", "dst_subnet=\"subnet-"];
    tools::until("a pair with flows", || (program.metric("flowshift_pair_flows_total", &ours) > 0.0).then_some(()));
    let metrics = program.metrics();
    let pairs = |line: &&str| line.starts_with("flowshift_pair_flows_total{") && !line.contains("other");
    assert_eq!(metrics.lines().filter(pairs).count(), 1, "{metrics}");
    program.finish();
}

#[test]
fn a_real_prometheus_scrapes_the_admin_port() {
    let Some(prometheus) = tools::prometheus() else {
        return tools::skip("metrics", "no prometheus");
    };
    let site = Site::two_subnets();
    let program = site.start();
    let settings = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: flowshift, static_configs: [{{targets: [\"{}\"]}}]}}]\n",
        program.admin
    );
    std::fs::write(site.path("prometheus.yml"), settings).unwrap();
    // Prometheus cannot say which port it took, so a free one is looked up first.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}", site.path("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", site.path("tsdb").display()));
    command.arg(format!("--web.listen-address={address}"));
    let log = std::fs::File::create(site.path("prometheus.log")).unwrap();
    let _running = Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let value = |query: &str| {
        let answer = http::get(&address, &format!("/api/v1/query?query={query}")).ok()?;
        let result = serde_json::from_str::<serde_json::Value>(&answer.body).ok()?;
        result["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
    };
    assert_eq!(tools::until("up", || value("up").filter(|up| *up > 0.0)), 1.0);
    let series = tools::until("a flowshift metric", || value("count(%7B__name__%3D~%22flowshift_.%2B%22%7D)"));
    assert!(series > 50.0, "{series}");
    program.finish();
}
