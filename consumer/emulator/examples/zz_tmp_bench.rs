//! tmp
#![allow(missing_docs, clippy::unwrap_used)]
use std::time::Instant;
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig};
use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpStream};
fn cpu() -> f64 { let s = std::fs::read_to_string("/proc/self/stat").unwrap(); let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect(); (f[11].parse::<f64>().unwrap()+f[12].parse::<f64>().unwrap())/100.0 }
fn rss() -> u64 { let s = std::fs::read_to_string("/proc/self/status").unwrap(); s.lines().find(|l| l.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap() }
async fn call(s: &mut TcpStream, op: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-amz-json-1.1\r\nx-amz-target: Kinesis_20131202.{op}\r\ncontent-length: {}\r\n\r\n", body.len());
    s.write_all(head.as_bytes()).await.unwrap(); s.write_all(body).await.unwrap();
    let mut buf = Vec::with_capacity(1<<20); 
    loop { s.read_buf(&mut buf).await.unwrap();
        if let Some(e) = buf.windows(4).position(|w| w==b"\r\n\r\n") { let h = String::from_utf8_lossy(&buf[..e]).to_lowercase(); assert!(h.contains("200 ok"), "{h}"); let n: usize = h.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
            while buf.len() < e+4+n { s.read_buf(&mut buf).await.unwrap(); } return buf[e+4..].to_vec(); } }
}
#[tokio::main(flavor="multi_thread", worker_threads=2)]
async fn main() {
    for (disk, size) in [(false,200usize),(false,1024),(true,200),(true,1024)] {
        let dir = std::env::temp_dir().join(format!("emu-bench-{size}"));
        let t0 = Instant::now();
        let e = Emulator::start(EmulatorConfig{data_dir: disk.then(|| dir.clone()), ..Default::default()}, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let started = t0.elapsed();
        let mut s = TcpStream::connect(e.addr()).await.unwrap();
        call(&mut s, "CreateStream", br#"{"StreamName":"s","ShardCount":4}"#).await;
        let data = "QUJD".repeat(size/3);
        let recs: Vec<String> = (0..500).map(|i| format!(r#"{{"Data":"{data}","PartitionKey":"key-{i}"}}"#)).collect();
        let body = format!(r#"{{"StreamName":"s","Records":[{}]}}"#, recs.join(",")).into_bytes();
        let (c0, w0) = (cpu(), Instant::now());
        let mut js = vec![];
        for _ in 0..4 { let (b,a)=(body.clone(), e.addr()); js.push(tokio::spawn(async move { let mut s = TcpStream::connect(a).await.unwrap(); for _ in 0..100 { call(&mut s, "PutRecords", &b).await; } })); }
        for j in js { j.await.unwrap(); }
        let (c1, w1) = (cpu(), w0.elapsed().as_secs_f64());
        let n = 200_000.0; let c = c1-c0;
        println!("disk={disk} {size} B: start {started:?}; PUT {:.0} rec/CPU-s {:.1} MB/CPU-s (wall {:.0}/s)", n/c, n*size as f64/c/1e6, n/w1);
        let (c0, w0) = (cpu(), Instant::now()); let mut got=0;
        for sh in 0..4 { let r = call(&mut s, "GetShardIterator", format!(r#"{{"StreamName":"s","ShardId":"shardId-{sh:012}","ShardIteratorType":"TRIM_HORIZON"}}"#).as_bytes()).await;
            let mut it = String::from_utf8(r).unwrap().split('"').nth(3).unwrap().to_owned();
            loop { let r = call(&mut s, "GetRecords", format!(r#"{{"ShardIterator":"{it}"}}"#).as_bytes()).await;
                let k = r.windows(16).filter(|w| w==b"\"SequenceNumber\"").count(); if k==0 {break;} got+=k;
                let t = String::from_utf8_lossy(&r[r.len().saturating_sub(600)..]).into_owned(); it = t.split("\"NextShardIterator\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned(); } }
        let (c, w) = (cpu()-c0, w0.elapsed().as_secs_f64());
        println!("   GET {got}: {:.0} rec/CPU-s {:.1} MB/CPU-s (wall {:.0}/s) RSS {} MB (client included)", got as f64/c, got as f64*size as f64/c/1e6, got as f64/w, rss()/1024);
        drop(e); let _ = std::fs::remove_dir_all(&dir);
    }
}
