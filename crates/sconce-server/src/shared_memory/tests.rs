use std::path::PathBuf;

use super::*;

/// A shared memory object, removed on drop.
struct Object(PathBuf);

impl Object {
    fn new(name: &str, contents: &[u8]) -> (Self, String) {
        let key = format!("sconce-test-{}-{name}", std::process::id());
        let path = PathBuf::from("/dev/shm").join(&key);
        std::fs::write(&path, contents).expect("there is room");
        (Self(path), format!("/{key}"))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // Some tests remove it themselves.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Parameters of a tensor.
struct Place(Vec<(&'static str, ParameterValue<'static>)>);

impl ParameterMap for Place {
    fn get(&self, name: &str) -> Option<ParameterValue<'_>> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| *name)
    }
}

fn place(region: &'static str, offset: i128, bytes: i128) -> Place {
    let integer = ParameterValue::Integer;
    Place(vec![(REGION, ParameterValue::Text(region)), (OFFSET, integer(offset)), (BYTES, integer(bytes))])
}

fn message<T>(outcome: Result<T, impl ToString>) -> String {
    outcome.map(drop).map_err(|error| error.to_string()).expect_err("it is refused")
}

#[test]
fn a_tensor_is_read_from_and_written_to_its_place_even_after_the_object_has_lost_its_name() {
    let (object, key) = Object::new("place", b"0123456789");
    let memory = SharedMemory::allowed();
    memory.register("r", &key, 2, 8).unwrap();
    let held = File::open(&object.0).unwrap();
    drop(object);
    let tensor = memory.place("x", &place("r", 1, 3)).unwrap().unwrap();
    assert_eq!(tensor.read(None).unwrap(), &b"345"[..]);
    tensor.write(b"ab").unwrap();
    let mut contents = [0; 10];
    read_at(&held, &mut contents, 0).unwrap();
    assert_eq!(&contents, b"012ab56789");
    assert_eq!(message(tensor.write(b"abcd")), "output 'x' has 4 bytes, but its place in shared memory has 3");
    assert!(memory.place("x", &Place(Vec::new())).unwrap().is_none());
}

#[test]
fn a_place_beyond_the_region_or_without_its_parts_is_refused() {
    let (_object, key) = Object::new("bounds", &[0; 10]);
    let memory = SharedMemory::allowed();
    memory.register("r", &key, 0, 10).unwrap();
    let refused = |place| message(memory.place("x", &place));
    for (offset, bytes) in [(0, 11), (10, 1), (i128::from(u64::MAX), 1)] {
        let expected = format!(
            "tensor 'x' takes {bytes} bytes after the first {offset} of the shared memory region 'r', which has 10"
        );
        assert_eq!(refused(place("r", offset, bytes)), expected);
    }
    assert_eq!(refused(place("s", 0, 1)), "no shared memory region is named 's'; register it first");
    assert!(refused(place("r", -1, 1)).contains("'shared_memory_offset' is the integer -1"));
    let whole = place("r", 0, 1).0;
    let without = |name| refused(Place(whole.iter().copied().filter(|(known, _)| *known != name).collect()));
    assert_eq!(without(BYTES), "tensor 'x' has parameter 'shared_memory_offset', but not 'shared_memory_byte_size'");
    assert_eq!(without(REGION), "tensor 'x' has parameter 'shared_memory_byte_size', but not 'shared_memory_region'");
}

#[test]
fn an_object_that_was_cut_short_is_an_error_and_does_not_grow_again() {
    let (object, key) = Object::new("cut", &[0; 10]);
    let memory = SharedMemory::allowed();
    memory.register("r", &key, 0, 10).unwrap();
    let tensor = memory.place("x", &place("r", 4, 4)).unwrap().unwrap();
    File::options().write(true).open(&object.0).unwrap().set_len(6).unwrap();
    assert!(message(tensor.read(None)).starts_with("cannot reach tensor 'x' in the shared memory region 'r'"));
    assert!(message(tensor.write(b"abc")).starts_with("cannot reach tensor 'x'"));
    assert_eq!(std::fs::metadata(&object.0).unwrap().len(), 6);
}

#[test]
fn only_objects_of_shared_memory_of_the_size_are_registered_each_name_once_and_boundedly_many() {
    let (object, key) = Object::new("register", &[0; 10]);
    let memory = SharedMemory::allowed();
    for wrong in ["", "/", ".", "..", "/../etc/passwd", "a/b", "//a", "a\0b"] {
        let refused = message(memory.register("r", wrong, 0, 1));
        assert!(refused.ends_with("must be a name, with a '/' before it or none"), "{wrong:?}: {refused}");
    }
    assert!(message(memory.register("r", "sconce-no-such", 0, 1)).starts_with("cannot open"));
    for (offset, bytes) in [(0, 11), (10, 1), (u64::MAX, 1)] {
        assert!(message(memory.register("r", &key, offset, bytes)).ends_with("has 10 bytes"));
    }
    let link = object.0.with_extension("link");
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    let through_link = memory.register("r", &format!("{key}.link"), 0, 1);
    std::fs::remove_file(link).unwrap();
    assert!(message(through_link).starts_with("cannot open"), "a link leads out of shared memory");

    memory.register("r", &key, 0, 10).unwrap();
    let expected = "a shared memory region named 'r' is registered already; unregister it first";
    assert_eq!(message(memory.register("r", &key, 0, 10)), expected);
    for region in 1..MAX_SHARED_MEMORY_REGIONS {
        memory.register(&region.to_string(), &key, 0, 1).unwrap();
    }
    let full = "there are 256 shared memory regions, and no more are allowed; unregister some";
    assert_eq!(message(memory.register("more", &key, 0, 1)), full);
    assert_eq!(memory.regions("").unwrap().len(), MAX_SHARED_MEMORY_REGIONS);
    memory.unregister("r").unwrap();
    assert!(memory.regions("r").is_err());
    memory.unregister("").unwrap();
    assert!(memory.regions("").unwrap().is_empty());
}

#[test]
fn where_it_is_not_allowed_nothing_is_registered_and_clients_may_still_forget_all() {
    let memory = SharedMemory::default();
    for refused in [message(memory.register("r", "k", 0, 1)), message(memory.place("x", &place("r", 0, 1)))] {
        assert!(refused.starts_with("shared memory is not served"), "{refused}");
    }
    assert!(memory.unregister("r").is_err());
    memory.unregister("").unwrap();
    assert!(memory.regions("").unwrap().is_empty());
}
