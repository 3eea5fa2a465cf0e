//! Region, credentials, and who AWS takes us for.
//!
//! STS is asked with `GetCallerIdentity`, which needs no permission. Local stand-ins have no STS: then who we are stays
//! open, and it is said.

use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;

use super::answer::Trouble;
use super::patient::Credentials;
use super::{Finding, Patient};

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    if patient.embedded {
        return vec![Finding::ok("embedded services", "need no credentials")];
    }
    let mut findings = vec![region(patient.region())];
    let found = patient.credentials().await;
    findings.push(credentials(found.as_ref().map(|found| *found).map_err(String::as_str)));
    let (Ok(_), Some(shared)) = (found, &patient.shared) else { return findings };
    if patient.region().is_none() {
        return findings;
    }
    if !has_sts(&patient.config.aws.endpoint_url_kinesis, |name| std::env::var_os(name).is_some()) {
        findings.push(Finding::skipped(
            "caller",
            "the endpoint of Kinesis is a local stand-in, which has no STS",
            "set AWS_ENDPOINT_URL_STS if there is one; against AWS the caller is asked for",
        ));
        return findings;
    }
    let sts = aws_sdk_sts::Client::new(shared);
    findings.push(caller(&sts.get_caller_identity().send().await.map_err(|error| Trouble::of(&error))));
    findings
}

/// A region of the usual form, such as `eu-west-1` or `us-gov-east-1`.
fn looks_like_a_region(region: &str) -> bool {
    let parts: Vec<&str> = region.split('-').collect();
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts.as_slice() {
        [place @ .., number] if place.len() >= 2 => {
            place[0].len() == 2 && place.iter().all(letters) && number.len() == 1 && number.parse::<u8>().is_ok()
        }
        _ => false,
    }
}

fn region(region: Option<&str>) -> Finding {
    const FIX: &str = "set aws.region (or AWS_REGION), such as \"eu-west-1\"";
    match region {
        Some(region) if looks_like_a_region(region) => Finding::ok("region", region),
        Some(region) => Finding::warning("aws.region", format!("`{region}` does not look like a region"), FIX),
        None => Finding::fault("aws.region", "no region: neither settings, environment nor profile name one", FIX),
    }
}

fn credentials(found: Result<&Credentials, &str>) -> Finding {
    match found {
        Ok(found) => {
            let account = found.account.as_ref().map_or(String::new(), |account| format!(", account {account}"));
            Finding::ok("credentials", format!("from {}, key {}{account}", found.provider, found.key_id))
        }
        Err(why) => Finding::fault(
            "credentials",
            format!("there are none: {why}"),
            "in a pod: a service account with IRSA or Pod Identity (k8s/components); elsewhere: AWS_PROFILE, \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or an instance role",
        ),
    }
}

/// Whether STS can be asked: always on AWS, beside a local stand-in only when one is named for it.
fn has_sts(kinesis: &Option<String>, is_set: impl Fn(&str) -> bool) -> bool {
    let local = kinesis.as_ref().is_some_and(|url| url.starts_with("http://"));
    !local || is_set("AWS_ENDPOINT_URL_STS") || is_set("AWS_ENDPOINT_URL")
}

fn caller(answer: &Result<GetCallerIdentityOutput, Trouble>) -> Finding {
    match answer {
        Ok(told) => {
            let (arn, account) = (told.arn().unwrap_or("unknown"), told.account().unwrap_or("unknown"));
            Finding::ok("caller", format!("{arn} of account {account}"))
        }
        Err(trouble @ Trouble::Unreachable(why)) => Finding::warning("caller", format!("STS: {why}"), trouble.fix()),
        Err(trouble) => Finding::fault(
            "caller",
            format!("STS refuses the credentials: {}", trouble.text()),
            "renew them; a stray AWS_ACCESS_KEY_ID comes before the pod's role",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn regions_are_told_from_zones_and_slips() {
        for good in ["eu-west-1", "us-gov-east-1", "ap-southeast-3", "us-iso-east-1"] {
            assert_eq!(region(Some(good)).level, Level::Ok, "{good}");
        }
        for odd in ["eu-west-1a", "euwest1", "EU-WEST-1", "eu-west", "", "use1-az1"] {
            assert_eq!(region(Some(odd)).level, Level::Warning, "{odd}");
        }
        assert_eq!(region(None).level, Level::Fault);
    }

    #[test]
    fn sts_is_not_asked_beside_a_local_stand_in_unless_one_is_named() {
        let local = Some("http://127.0.0.1:4567".to_owned());
        assert!(has_sts(&None, |_| false));
        assert!(has_sts(&Some("https://vpce-1.kinesis.eu-west-1.vpce.amazonaws.com".into()), |_| false));
        assert!(!has_sts(&local, |_| false));
        assert!(has_sts(&local, |name| name == "AWS_ENDPOINT_URL_STS"));
    }

    #[test]
    fn credentials_that_sts_refuses_are_a_fault_and_an_sts_out_of_reach_is_not() {
        let refused = caller(&Err(Trouble::Credentials("ExpiredToken: the token is expired".into())));
        assert!(refused.level == Level::Fault && refused.what.contains("expired"));
        assert_eq!(caller(&Err(Trouble::Unreachable("no route".into()))).level, Level::Warning);
    }

    #[test]
    fn the_provider_that_won_is_named_and_the_secret_is_not() {
        let found =
            Credentials { provider: "an assumed role".into(), key_id: "AKIA1".into(), account: Some("1".into()) };
        let told = credentials(Ok(&found));
        assert_eq!(told.what, "from an assumed role, key AKIA1, account 1");
    }
}
