//! A webhook receiver in the test's own process: remembers bodies, answers as it is told, and looks at no signature.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// The receiver; it serves until the test ends.
pub(crate) struct Hook {
    /// Where it listens.
    pub(crate) url: String,
    bodies: Arc<Mutex<Vec<Value>>>,
    status: Arc<AtomicU16>,
}

impl Hook {
    /// Answers 200.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let bodies: Arc<Mutex<Vec<Value>>> = Arc::default();
        let status = Arc::new(AtomicU16::new(200));
        let (kept, answer) = (Arc::clone(&bodies), Arc::clone(&status));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    let header = line.to_ascii_lowercase();
                    if let Some(value) = header.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                // The sender may be killed at any byte.
                if reader.read_exact(&mut body).is_ok()
                    && let Ok(body) = serde_json::from_slice(&body)
                {
                    kept.lock().unwrap().push(body);
                    let status = answer.load(Ordering::SeqCst);
                    let answer = format!("HTTP/1.1 {status} told\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).ok();
                }
            }
        });
        Self { url, bodies, status }
    }

    /// Answers so from now on.
    pub(crate) fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Type and mark of what came.
    pub(crate) fn told(&self) -> Vec<(String, bool)> {
        let bodies = self.bodies.lock().unwrap();
        let of = |body: &Value| (body["type"].as_str().unwrap().to_owned(), body["data"]["muted"].is_object());
        bodies.iter().map(of).collect()
    }
}
