//! Every format is read, and every fault in a file is told with its line.

use std::time::Duration;

use sconce_trace::{RecordedInput, RecordedPriority, RequestTrace, TraceError, TraceFormat, TraceLimits};

const LIMITS: TraceLimits = TraceLimits { max_line_bytes: 1000, max_requests: 5, max_bytes: 4000, max_items: 100 };

fn read(file: &str) -> Result<RequestTrace, TraceError> {
    RequestTrace::read(file.as_bytes(), &LIMITS)
}

fn arrivals(trace: &RequestTrace) -> Vec<(u128, u32)> {
    trace.requests().iter().map(|it| (it.at.as_micros(), it.weight.expect("it has a weight"))).collect()
}

fn refused(file: &str) -> String {
    read(file).expect_err("it is no trace").to_string()
}

#[test]
fn the_traces_of_azure_are_read_with_and_without_a_zone() {
    let of_2023 = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:47.0000000,1,2\n";
    let trace = read(of_2023).unwrap();
    assert_eq!(arrivals(&trace), [(0, 374), (319_410, 1), (4_314_579, 396)], "in order of arrival");
    let of_2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
        2024-05-10 00:00:00.009930+00:00,2162,5\r\n2024-05-10 00:00:01+00:00,2399,6\r\n";
    assert_eq!(arrivals(&read(of_2024).unwrap()), [(0, 2162), (990_070, 2399)]);
}

#[test]
fn the_traces_of_burst_gpt_are_read_whatever_the_order_of_columns() {
    let of_1 = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
        5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,1087,230,1317,API log\n";
    assert_eq!(arrivals(&read(of_1).unwrap()), [(0, 472), (40_500_000, 1087)]);
    let other_order = "Log Type,Timestamp,Request tokens\n\"API log\",1.0,2.0\n";
    assert_eq!(arrivals(&read(other_order).unwrap()), [(0, 2)]);
}

#[test]
fn the_traces_of_mooncake_are_read() {
    let file = r#"{"timestamp": 3052, "input_length": 7234, "output_length": 794, "hash_ids": [0, 28]}
        {"timestamp": 3000, "input_length": 2287, "output_length": 316, "hash_ids": []}"#;
    assert_eq!(arrivals(&read(file).unwrap()), [(0, 2287), (52_000, 7234)]);
}

#[test]
fn a_trace_that_was_written_is_read_as_it_was() {
    let file = "{\"sconce_trace\":1,\"origin\":\"a test\"}\n\
        {\"at_us\":7,\"model\":\"minilm\",\"items\":2,\"weight\":60,\"priority\":\"low\",\"deadline_us\":50000,\"inputs\":[\"a\",[\"b\",\"c\"]]}\n\
        {\"at_us\":3,\"inputs\":[[1,2,3]]}\n\n";
    let trace = read(file).unwrap();
    let [first, second] = trace.requests() else { panic!("{trace:?}") };
    assert_eq!((first.at, first.weight, first.items), (Duration::from_micros(3), None, 1));
    assert_eq!(first.inputs, [RecordedInput::Tokens(vec![1, 2, 3])]);
    assert_eq!((second.priority, second.deadline), (RecordedPriority::Low, Some(Duration::from_millis(50))));
    assert_eq!(second.inputs[1], RecordedInput::Pair(["b".to_owned(), "c".to_owned()]));
    assert_eq!((trace.origin(), second.model.as_deref()), ("a test", Some("minilm")));
    let mut written = Vec::new();
    trace.write(&mut written).unwrap();
    assert_eq!(RequestTrace::read(&written[..], &LIMITS).unwrap(), trace);
}

#[test]
fn a_format_is_told_by_the_first_line() {
    let table = [
        ("{\"sconce_trace\":1}", Some(TraceFormat::Sconce)),
        ("\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens", Some(TraceFormat::Azure)),
        ("\"Timestamp\",\"Model\",\"Request tokens\"", Some(TraceFormat::BurstGpt)),
        ("{\"input_length\":1,\"timestamp\":2}", Some(TraceFormat::Mooncake)),
        ("{\"at_us\":1}", None),
        ("a,b,c", None),
        ("{", None),
    ];
    for (line, format) in table {
        assert_eq!(TraceFormat::of(line), format, "{line}");
    }
    assert!(refused("a,b,c\n1,2,3\n").contains("begins with 'a,b,c', which no known format does"));
}

#[test]
fn a_fault_is_told_with_its_line_field_value_and_remedy() {
    let own = |line: &str| format!("{{\"sconce_trace\":1}}\n{{\"at_us\":1}}\n{line}\n");
    let table = [
        (own("{\"at_us\":-1}"), "line 3 of the trace is no request"),
        (own("{\"at_us\":1,\"weigth\":1}"), "unknown field `weigth`"),
        (own("{\"at_us\":1,\"items\":101}"), "line 3 of the trace: field 'items' is 101; it must be at least 1"),
        (own("{\"at_us\":1,\"items\":0}"), "line 3 of the trace: field 'items' is 0; it must be at least 1"),
        (own("{\"at_us\":1,\"items\":2,\"inputs\":[\"a\"]}"), "field 'inputs' is a list of 1; it must be absent"),
        (
            own("{\"at_us\":99999999999999999}"),
            "field 'at_us' is 99999999999999999; it must be a number of microseconds",
        ),
        (own("{\"at_us\":1,\"deadline_us\":18446744073709551615}"), "field 'deadline_us'"),
        (own("{\"at_us\":"), "it ends too early"),
        ("{\"sconce_trace\":2}\n".to_owned(), "field 'sconce_trace' of line 1 is 2"),
        ("{\"sconce_trace\":1}\n".to_owned(), "has no request"),
        (String::new(), "the trace is empty"),
        ("TIMESTAMP,ContextTokens\nyesterday,1\n".to_owned(), "line 2 of the trace: field 'TIMESTAMP' is 'yesterday'"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,many\n".to_owned(), "field 'ContextTokens' is 'many'"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,1,3\n".to_owned(), "it has 3 cells, the header has 2"),
        ("Timestamp,Request tokens\nNaN,1\n".to_owned(), "field 'Timestamp' is 'NaN'"),
        ("Timestamp,Request tokens\n0,1\n1e300,1\n".to_owned(), "line 3 of the trace: field 'Timestamp'"),
        ("Timestamp,Request tokens\n0,-1\n".to_owned(), "field 'Request tokens' is '-1'"),
    ];
    for (file, said) in table {
        let error = refused(&file);
        assert!(error.contains(said), "{error} lacks {said}");
    }
}

#[test]
fn a_trace_beyond_a_limit_is_refused_with_the_limit() {
    let many = format!("{{\"sconce_trace\":1}}\n{}", "{\"at_us\":1}\n".repeat(6));
    assert!(refused(&many).contains("more than max_requests, 5"));
    let table = format!("Timestamp,Request tokens\n{}", "1,1\n".repeat(6));
    assert!(refused(&table).contains("more than max_requests, 5"));
    let mooncake = "{\"timestamp\":1,\"input_length\":1}\n".repeat(6);
    assert!(refused(&mooncake).contains("more than max_requests, 5"));
    let long = format!("{{\"sconce_trace\":1}}\n{{\"at_us\":1,\"model\":\"{}\"}}\n", "m".repeat(1000));
    assert!(refused(&long).contains("line 2 of the trace is longer than max_line_bytes, 1000"));
    let long_row = format!("Timestamp,Request tokens\n{},1\n", "1".repeat(1001));
    assert!(refused(&long_row).contains("line 2 of the trace is longer than max_line_bytes"));
    let endless = RequestTrace::read(std::io::repeat(b'{'), &LIMITS).unwrap_err();
    assert!(endless.to_string().contains("line 1 of the trace is longer"), "{endless}");
    let large = format!("Timestamp,Request tokens\n{}", format!("{},1\n", "1".repeat(900)).repeat(5));
    assert!(refused(&large).contains("more than max_bytes, 4000"));
}
