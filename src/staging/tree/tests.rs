//! The tree against a model, and made again from its changes.

use proptest::prelude::*;

use super::super::change::Change;
use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "versions"];

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4)
        .prop_map(|names| names.join("/").into_bytes())
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => path().prop_map(|path| Change::Mkdir { path }),
        3 => (path(), 0..9u64).prop_map(|(path, overlay)| Change::Create { path, overlay }),
        1 => (path(), 0..9u64).prop_map(|(path, overlay)| Change::Edit { path, overlay, digest: None }),
        2 => path().prop_map(|path| Change::Remove { path }),
        3 => (path(), path()).prop_map(|(from, to)| Change::Rename { from, to }),
        1 => (path(), path()).prop_map(|(from, to)| Change::Exchange { from, to }),
        1 => (path(), any::<u8>()).prop_map(|(path, value)| Change::Npy {
            path,
            header: (value > 99).then(|| vec![value]),
            draft: (value > 199).then_some(u64::from(value)),
        }),
        1 => (path(), any::<u8>()).prop_map(|(path, value)| Change::Attribute {
            path,
            name: b"x".to_vec(),
            value: (value > 99).then(|| vec![value]),
        }),
    ]
}

/// The same tree as a list of paths: `None` for a group, the overlay's number for a dataset.
type Model = BTreeMap<String, Option<u64>>;

fn is_below(path: &str, group: &str) -> bool {
    path.strip_prefix(group)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn group_exists(model: &Model, path: &str) -> bool {
    path.rsplit_once('/')
        .is_none_or(|(group, _)| model.get(group) == Some(&None))
}

fn is_allowed(path: &str) -> bool {
    path != "versions"
}

fn take(model: &mut Model, path: &str) -> Vec<(String, Option<u64>)> {
    let keys: Vec<String> = model
        .keys()
        .filter(|key| *key == path || is_below(key, path))
        .cloned()
        .collect();
    keys.into_iter()
        .map(|key| {
            let value = model.remove(&key).unwrap();
            (key[path.len()..].to_owned(), value)
        })
        .collect()
}

fn put(model: &mut Model, path: &str, taken: Vec<(String, Option<u64>)>) {
    model.extend(
        taken
            .into_iter()
            .map(|(rest, value)| (format!("{path}{rest}"), value)),
    );
}

/// Makes the change in the model, and says whether it can be made.
fn model_apply(model: &mut Model, change: &Change) -> bool {
    let text = |path: &Vec<u8>| String::from_utf8(path.clone()).unwrap();
    match change {
        Change::Mkdir { path } | Change::Create { path, .. } => {
            let path = text(path);
            if !group_exists(model, &path) || model.contains_key(&path) || !is_allowed(&path) {
                return false;
            }
            let overlay = match change {
                Change::Create { overlay, .. } => Some(*overlay),
                _ => None,
            };
            model.insert(path, overlay);
        }
        // Everything here is new, and has its overlay from the beginning.
        Change::Edit { .. } => return false,
        Change::Remove { path } => {
            let path = text(path);
            if !model.contains_key(&path) || model.keys().any(|key| is_below(key, &path)) {
                return false;
            }
            model.remove(&path);
        }
        Change::Rename { from, to } => {
            let (from, to) = (text(from), text(to));
            if !model.contains_key(&from)
                || !group_exists(model, &to)
                || !is_allowed(&to)
                || is_below(&to, &from)
            {
                return false;
            }
            if from == to {
                return true;
            }
            if let Some(target) = model.get(&to)
                && (target.is_some() != model[&from].is_some()
                    || model.keys().any(|key| is_below(key, &to)))
            {
                return false;
            }
            model.remove(&to);
            let taken = take(model, &from);
            put(model, &to, taken);
        }
        Change::Exchange { from, to } => {
            let (from, to) = (text(from), text(to));
            if !model.contains_key(&from)
                || !model.contains_key(&to)
                || is_below(&from, &to)
                || is_below(&to, &from)
            {
                return false;
            }
            if from != to {
                let (a, b) = (take(model, &from), take(model, &to));
                put(model, &to, a);
                put(model, &from, b);
            }
        }
        Change::Npy { path, .. } => return matches!(model.get(&text(path)), Some(Some(_))),
        Change::Attribute { path, .. } => return model.contains_key(&text(path)),
    }
    true
}

fn as_model(tree: &Tree) -> Model {
    tree.objects()
        .into_iter()
        .map(|(path, id)| {
            let node = tree.node(id).unwrap();
            assert_eq!(tree.find(&path).unwrap(), id);
            assert_eq!(tree.path(id, true).unwrap(), *path);
            let overlay = node.dataset().map(|dataset| dataset.overlay.unwrap());
            (String::from_utf8(path.to_vec()).unwrap(), overlay)
        })
        .collect()
}

fn described(tree: &Tree) -> Vec<String> {
    let objects = tree.objects();
    objects
        .iter()
        .map(|(path, id)| format!("{path:?} {:?}", tree.node(*id).unwrap()))
        .collect()
}

proptest! {
    #[test]
    fn changes_do_what_they_do_to_paths(changes in prop::collection::vec(change(), 0..60)) {
        let mut tree = Tree::of_base(None, None);
        let mut model = Model::new();
        let mut done = Vec::new();
        for change in changes {
            let before = described(&tree);
            let expected = model_apply(&mut model, &change);
            let made = tree.apply(&change, None);
            prop_assert_eq!(made.is_ok(), expected, "{:?}: {:?}", change, made);
            if expected {
                done.push(change);
            } else {
                prop_assert_eq!(described(&tree), before);
            }
            prop_assert_eq!(as_model(&tree), model.clone());
        }
        let mut again = Tree::of_base(None, None);
        for change in &done {
            again.apply(change, None).unwrap();
        }
        prop_assert_eq!(described(&again), described(&tree));
        prop_assert_eq!(tree.differences().len(), model.len());
    }
}

fn dataset<'t>(tree: &'t Tree, path: &str) -> (&'t Node, &'t DatasetNode) {
    let node = tree.node(tree.find(path.as_bytes()).unwrap()).unwrap();
    (node, node.dataset().unwrap())
}

fn create(tree: &mut Tree, path: &str) {
    let path = path.as_bytes().to_vec();
    tree.apply(&Change::Create { path, overlay: 1 }, None)
        .unwrap();
}

fn set(tree: &mut Tree, path: &str, name: &str, value: &str) {
    let change = Change::Attribute {
        path: path.as_bytes().to_vec(),
        name: name.as_bytes().to_vec(),
        value: Some(value.as_bytes().to_vec()),
    };
    tree.apply(&change, None).unwrap();
}

fn rename(tree: &mut Tree, from: &str, to: &str) {
    let (from, to) = (from.as_bytes().to_vec(), to.as_bytes().to_vec());
    tree.apply(&Change::Rename { from, to }, None).unwrap();
}

#[test]
fn what_replaces_a_dataset_takes_what_it_has_not() {
    let mut tree = Tree::of_base(None, None);
    create(&mut tree, "old");
    set(&mut tree, "old", "h5.dtype", "<f8");
    set(&mut tree, "old", "h5.chunks", "[7]");
    set(&mut tree, "old", "units", "m");
    set(&mut tree, "old", "scale", "2");
    create(&mut tree, "new");
    set(&mut tree, "new", "h5.dtype", "<i4");
    set(&mut tree, "new", "scale", "3");
    rename(&mut tree, "new", "old");
    let (node, dataset) = dataset(&tree, "old");
    assert_eq!(dataset.declared[&b"h5.dtype"[..]], b"<i4");
    assert_eq!(dataset.declared[&b"h5.chunks"[..]], b"[7]");
    assert_eq!(node.attributes[&b"units"[..]].as_deref(), Some(&b"m"[..]));
    assert_eq!(node.attributes[&b"scale"[..]].as_deref(), Some(&b"3"[..]));
}

#[test]
fn numbers_stay_with_paths_when_the_base_changes_and_are_not_given_again() {
    let mut tree = Tree::of_base(None, None);
    create(&mut tree, "x");
    let x = tree.find(b"x").unwrap();
    let mut next = Tree::of_base(None, Some(&tree));
    assert!(matches!(next.node(x), Err(StagingError::Stale)));
    create(&mut next, "y");
    assert_ne!(next.find(b"y").unwrap(), x);
}

#[test]
fn names_that_cannot_be() {
    let tree = Tree::of_base(None, None);
    let check = |name: &[u8]| {
        tree.check(&Change::Mkdir {
            path: name.to_vec(),
        })
    };
    for name in [&b"."[..], b"..", b"", b"a\0", b"versions"] {
        assert!(
            matches!(check(name), Err(StagingError::BadName { .. })),
            "{name:?}"
        );
    }
    assert!(matches!(
        check(&[b'x'; 256]),
        Err(StagingError::NameTooLong)
    ));
    assert!(check(&[b'x'; 255]).is_ok());
}
