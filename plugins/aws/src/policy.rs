//! `--iam-policy`: the permissions that the plugin needs, as a policy document of IAM.

use std::process::ExitCode;

use serde_json::{Value, json};

const ARGUMENT: &str = "--iam-policy";

/// Prints the policy if the first argument asks for it; further ones name groups.
pub(crate) fn print_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let groups: Vec<String> = arguments.collect();
    println!("{:#}", policy(&groups));
    Some(ExitCode::SUCCESS)
}

/// All features; the README says which statement belongs to which key.
fn policy(groups: &[String]) -> Value {
    let resources = |pattern: &dyn Fn(&str) -> String| -> Vec<String> {
        match groups {
            [] => vec![pattern("*")],
            groups => groups.iter().map(|group| pattern(group)).collect(),
        }
    };
    let of_group = resources(&|group| {
        format!("arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/{group}")
    });
    let names = resources(&|group| group.to_owned());
    let in_group = json!({"StringLike": {"ec2:ResourceTag/aws:autoscaling:groupName": names}});
    let instance = "arn:aws:ec2:*:*:instance/*";
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Look",
                "Effect": "Allow",
                "Action": [
                    "autoscaling:DescribeAutoScalingGroups",
                    "autoscaling:DescribeScalingActivities",
                    "ec2:DescribeInstances",
                    "ec2:DescribeInstanceStatus",
                ],
                "Resource": "*",
            },
            {
                "Sid": "Scale",
                "Effect": "Allow",
                "Action": [
                    "autoscaling:SetDesiredCapacity",
                    "autoscaling:TerminateInstanceInAutoScalingGroup",
                ],
                "Resource": of_group,
            },
            {
                "Sid": "LogIn",
                "Effect": "Allow",
                "Action": ["ec2-instance-connect:SendSSHPublicKey", "ec2:GetPasswordData"],
                "Resource": instance,
                "Condition": in_group,
            },
            {
                "Sid": "Repair",
                "Effect": "Allow",
                "Action": [
                    "autoscaling:UpdateAutoScalingGroup",
                    "autoscaling:SetInstanceProtection",
                    "autoscaling:SuspendProcesses",
                    "autoscaling:ResumeProcesses",
                ],
                "Resource": of_group,
            },
            {
                "Sid": "Owner",
                "Effect": "Allow",
                "Action": "autoscaling:CreateOrUpdateTags",
                "Resource": of_group,
            },
            {
                "Sid": "SuspendInGroup",
                "Effect": "Allow",
                "Action": ["autoscaling:EnterStandby", "autoscaling:ExitStandby"],
                "Resource": of_group,
            },
            {
                "Sid": "SuspendInstances",
                "Effect": "Allow",
                "Action": ["ec2:StopInstances", "ec2:StartInstances", "ec2:CreateTags"],
                "Resource": instance,
                "Condition": in_group,
            },
            {
                "Sid": "Notices",
                "Effect": "Allow",
                "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"],
                "Resource": "arn:aws:sqs:*:*:*",
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_named_narrow_the_policy() {
        let all = policy(&[]).to_string();
        assert!(all.contains("autoScalingGroupName/*"), "{all}");
        let some = policy(&["ci".into(), "spot".into()]).to_string();
        assert!(some.contains("autoScalingGroupName/ci") && some.contains("Name/spot"), "{some}");
        assert!(!some.contains("autoScalingGroupName/*"), "{some}");
    }
}
