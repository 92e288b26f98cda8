//! Tables and figures of the paper by name, and the variants whose runs they need.

use anyhow::bail;

/// What an item needs of an experiment with these variants, in their order; `None` for a name that is
/// no item. Figure 1 is drawn from formulas and needs no run.
fn variants_of<'a>(item: &str, variants: &'a [String]) -> Option<Vec<&'a str>> {
    let is_needed: fn(&str) -> bool = match item {
        "figure1" => |_| false,
        "table1" | "table2" => |name| ["bce", "focal", "zlpr", "fzlpr-0.2"].contains(&name),
        // τ = 1 is ZLPR.
        "table4" | "figure6" => |name| name == "zlpr" || name.starts_with("fzlpr-"),
        "table3" | "table5" | "figure2" | "figure3" | "figure4" | "figure5" | "figure7" => {
            |name| name == "fzlpr-0.2"
        }
        _ => return None,
    };
    let names = variants.iter().map(String::as_str);
    // Every seed of a loss is of its tables.
    let base = |name: &str| name.split("-seed").next().unwrap_or_default().to_owned();
    Some(names.filter(|name| is_needed(&base(name))).collect())
}

/// The variants to run, in the experiment's order: all, or those that `only` names, each as a variant, as the published
/// system of several (`systems` has that of each variant), or as a table or figure of the paper, such as `table2` or
/// `figure7`.
pub(super) fn select<'a>(
    experiment: &str,
    variants: &'a [String],
    systems: &[Option<String>],
    only: &[String],
) -> anyhow::Result<Vec<&'a str>> {
    let mut wanted: Vec<&str> = Vec::new();
    for name in only {
        if variants.contains(name) {
            wanted.push(name);
            continue;
        }
        let is_its = |of: &&(&String, &Option<String>)| of.1.as_ref() == Some(name);
        let of_system: Vec<&str> = (variants.iter().zip(systems))
            .filter(|of| is_its(&of))
            .map(|(variant, _)| variant.as_str())
            .collect();
        match variants_of(name, variants) {
            _ if !of_system.is_empty() => wanted.extend(of_system),
            Some(needed) => wanted.extend(needed),
            None => bail!(
                "experiment `{experiment}` has no variant and no system `{name}`\nhint: it has {}; a table or figure of the paper is named such as `table2` or `figure7`",
                quoted(variants)
            ),
        }
    }
    if wanted.is_empty() && !only.is_empty() {
        bail!(
            "no variant of experiment `{experiment}` belongs to {}",
            quoted(only)
        );
    }
    let is_wanted = |variant: &&str| only.is_empty() || wanted.contains(variant);
    let names = variants.iter().map(String::as_str);
    Ok(names.filter(is_wanted).collect())
}

fn quoted(names: &[String]) -> String {
    format!("`{}`", names.join("`, `"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_takes_variants_in_the_file_s_order_and_refuses_others() {
        let two = ["bce", "fzlpr-0.2"].map(str::to_owned);
        let only = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let systems = [None, Some("ours".to_owned())];
            select("two", &two, &systems, &names)
        };
        assert_eq!(only(&[]).unwrap(), two);
        assert_eq!(only(&["fzlpr-0.2", "bce"]).unwrap(), two);
        assert_eq!(only(&["fzlpr-0.2"]).unwrap(), two[1..]);
        assert_eq!(only(&["table3"]).unwrap(), two[1..]);
        assert_eq!(only(&["figure7", "bce"]).unwrap(), two);
        assert_eq!(only(&["ours"]).unwrap(), two[1..]);
        assert!(only(&["figure1"]).is_err());
        let error = only(&["fzlpr"]).unwrap_err().to_string();
        assert!(
            error.contains("`fzlpr`") && error.contains("`bce`, `fzlpr-0.2`"),
            "{error}"
        );
    }

    fn paper() -> Vec<String> {
        [
            "bce",
            "focal",
            "zlpr",
            "fzlpr-0.1",
            "fzlpr-0.2",
            "fzlpr-0.8",
            "lsep",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn each_item_names_the_runs_it_is_made_of() {
        let variants = paper();
        let of = |item: &str| variants_of(item, &variants);
        assert_eq!(of("table2").unwrap(), ["bce", "focal", "zlpr", "fzlpr-0.2"]);
        assert_eq!(
            of("figure6").unwrap(),
            ["zlpr", "fzlpr-0.1", "fzlpr-0.2", "fzlpr-0.8"]
        );
        assert_eq!(of("figure7").unwrap(), ["fzlpr-0.2"]);
        assert_eq!(of("figure1").unwrap(), [""; 0]);
        assert_eq!(of("table6"), None);
        assert_eq!(of("bce"), None);
    }

    #[test]
    fn all_seeds_of_a_loss_belong_to_its_tables() {
        let variants = ["bce", "bce-seed1", "fzlpr-0.2-seed1"].map(str::to_owned);
        let needed = variants_of("table2", &variants).unwrap();
        assert_eq!(needed, ["bce", "bce-seed1", "fzlpr-0.2-seed1"]);
    }
}
