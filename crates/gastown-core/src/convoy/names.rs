//! The names of the Polecats that Convoys create.

use gastown_types::digest::short_digest;
use gastown_types::slug;

/// How many characters of a Polecat's name come from the bead's id.
const MAX_SLUG: usize = 33;
/// How many characters of a digest a name ends with.
const DIGEST: usize = 10;

/// The themes of `spec.settings.namepoolTheme`; the first serves where none of them is named. Names
/// have at most ten letters.
const THEMES: [(&str, &[&str]); 3] = [
    (
        "mad-max",
        &[
            "ace",
            "angharad",
            "auntie",
            "blaster",
            "capable",
            "cheedo",
            "corpus",
            "dag",
            "dementus",
            "furiosa",
            "goose",
            "immortan",
            "keeper",
            "max",
            "morsov",
            "nux",
            "organic",
            "pigkiller",
            "rictus",
            "savannah",
            "slit",
            "toast",
            "toecutter",
            "valkyrie",
        ],
    ),
    (
        "minerals",
        &[
            "agate",
            "amber",
            "apatite",
            "azurite",
            "beryl",
            "calcite",
            "cinnabar",
            "citrine",
            "cobalt",
            "epidote",
            "feldspar",
            "fluorite",
            "galena",
            "garnet",
            "jasper",
            "malachite",
            "obsidian",
            "olivine",
            "onyx",
            "opal",
            "quartz",
            "topaz",
            "tourmaline",
            "zircon",
        ],
    ),
    (
        "wasteland",
        &[
            "ash", "bleach", "brine", "bunker", "cinder", "crater", "diesel", "drifter", "dune",
            "dust", "ember", "flint", "gravel", "husk", "mesa", "mirage", "piston", "raider",
            "relic", "rust", "salt", "scrap", "vulture", "wrench",
        ],
    ),
];

/// The name of the Polecat that a Convoy creates for a bead: at most 55 lowercase letters, digits
/// and hyphens, such as `furiosa-gt-1-75c74e51ff`. It follows from theme, Rig and bead alone, so
/// another reconcile, another Convoy or another replica chooses the same name.
pub fn polecat_name(theme: &str, rig: &str, bead: &str) -> String {
    name(theme, bead, &[rig, bead])
}

/// The name of the Polecat that a Convoy creates for a bead that a person reopened: another one than
/// [`polecat_name`], since the Polecat of that name may still exist. It follows from what landed
/// before: the MergeRequests that the bead was closed for, and the Polecats whose work that was.
pub fn polecat_name_again<'a>(
    theme: &str,
    rig: &str,
    bead: &str,
    before: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut parts: Vec<&str> = before.into_iter().collect();
    parts.sort_unstable();
    parts.splice(0..0, [rig, bead]);
    name(theme, bead, &parts)
}

fn name(theme: &str, bead: &str, parts: &[&str]) -> String {
    let digest = short_digest(parts, DIGEST);
    let known = THEMES.iter().find(|(name, _)| *name == theme).unwrap_or(&THEMES[0]).1;
    let number = digest.bytes().fold(0_usize, |sum, byte| sum * 31 + usize::from(byte));
    let chosen = known[number % known.len()];
    match slug(bead, MAX_SLUG).as_str() {
        "" => format!("{chosen}-bead-{digest}"),
        slug => format!("{chosen}-{slug}-{digest}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_is_a_label_of_its_own_and_begins_with_one_of_the_theme() {
        let long = "gt-".repeat(60);
        let tasks = [
            ("a", "gt-1"),
            ("b", "gt-1"),
            ("a", "gt-1.1"),
            ("a", "gt-1-1"),
            ("a", "GT_1-1"),
            ("a", &long),
            ("a", "___"),
            ("a", "日本"),
        ];
        for (theme, known) in THEMES {
            let names = tasks.map(|(rig, bead)| polecat_name(theme, rig, bead));
            for name in &names {
                assert!(name.len() <= 55 && !name.ends_with('-'), "{name}");
                let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                assert!(name.chars().all(is_allowed), "{name}");
                assert!(known.contains(&name.split('-').next().unwrap()), "{name}");
            }
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        }
    }

    #[test]
    fn a_name_stays_as_it_is() {
        assert_eq!(polecat_name("mad-max", "web", "GT_1.2"), "dag-gt-1-2-75c74e51ff");
        assert_eq!(polecat_name("minerals", "web", "GT_1.2"), "citrine-gt-1-2-75c74e51ff");
        assert_eq!(polecat_name("no such", "web", "日本"), "dag-bead-743ff90ae8");
    }

    #[test]
    fn a_reopened_bead_gets_another_name() {
        let again =
            |before: &[&str]| polecat_name_again("mad-max", "web", "gt-1", before.iter().copied());
        assert_eq!(again(&[]), polecat_name("mad-max", "web", "gt-1"));
        assert_eq!(again(&["a", "b"]), again(&["b", "a"]));
        assert_ne!(again(&["a"]), again(&[]));
    }
}
