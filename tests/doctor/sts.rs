//! Who AWS takes us for, by a stand-in for STS.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::Job;
use super::aws::Aws;

/// Answers every request with this status and body, and ends with the test.
fn sts(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 8192];
            if stream.read(&mut request).is_ok() {
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\n\
                     connection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).ok();
            }
        }
    });
    url
}

#[test]
fn the_identity_is_the_one_that_sts_names() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.env.push((
        "AWS_ENDPOINT_URL_STS",
        sts(
            "200 OK",
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>arn:aws:sts::123456789012:assumed-role/flowshift-all/pod</Arn><UserId>A</UserId>\
         <Account>123456789012</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>",
        ),
    ));
    let report = job.report(&["--role", "collect"]);
    let caller = report.of_level("ok").into_iter().find(|finding| finding["about"] == "caller").unwrap();
    assert_eq!(caller["what"], "arn:aws:sts::123456789012:assumed-role/flowshift-all/pod of account 123456789012");
}

#[test]
fn credentials_that_sts_refuses_are_a_fault() {
    let aws = Aws::complete();
    let mut job = Job::on(&aws);
    job.env.push((
        "AWS_ENDPOINT_URL_STS",
        sts(
            "403 Forbidden",
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>InvalidClientTokenId</Code><Message>The security token is invalid.</Message></Error>\
         </ErrorResponse>",
        ),
    ));
    job.report(&["--role", "collect"]).names(&["identity"], "InvalidClientTokenId", "a stray AWS_ACCESS_KEY_ID");
}
