use super::*;

const WINDOW: Window = Window { beginning: 4, end: 4, block: 8, padding: 256 };

fn symbols(content: &[u8]) -> Vec<u16> {
    WINDOW.symbols(content).unwrap()
}

#[test]
fn a_short_content_is_padded_behind_its_beginning_and_before_its_end() {
    assert_eq!(symbols(b"ab"), [97, 98, 256, 256, 256, 256, 97, 98]);
}

#[test]
fn white_space_is_stripped_before_the_beginning_and_after_the_end_only() {
    // Within one block the beginning keeps the spaces behind it, and the end those before it.
    assert_eq!(symbols(b" \x0b\nab "), [97, 98, 32, 256, 11, 10, 97, 98]);
    // Neither a no-break space nor a zero byte is white space.
    assert_eq!(symbols(b"\xa0\0"), [0xa0, 0, 256, 256, 256, 256, 0xa0, 0]);
}

#[test]
fn a_long_content_gives_its_first_and_last_bytes() {
    assert_eq!(symbols(b"abcdefghijkl"), [97, 98, 99, 100, 105, 106, 107, 108]);
}

#[test]
fn white_space_is_stripped_within_the_first_and_last_block_alone() {
    // The first block of 8 is all white: nothing is left of it, though letters follow.
    assert_eq!(symbols(b"          abcdef"), [256, 256, 256, 256, 99, 100, 101, 102]);
    assert_eq!(symbols(b"abcdef          "), [97, 98, 99, 100, 256, 256, 256, 256]);
    assert_eq!(
        WINDOW.symbols(b"          abc          "),
        Err(InputError::BlankEnds { name: CONTENT_INPUT, bytes: WINDOW.block })
    );
    assert_eq!(WINDOW.symbols(b""), Err(InputError::Empty { name: CONTENT_INPUT }));
}
