//! The media types that a client accepts.

use axum::http::{HeaderMap, header};

/// The header `Accept` of a request.
pub(super) struct AcceptedTypes<'a>(Vec<&'a str>);

impl<'a> AcceptedTypes<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        Self(values.flat_map(|value| value.split(',')).collect())
    }

    /// The weight, from 0 to 1, with which a media type is named; 0 if it is not named. `*/*` names none.
    pub(super) fn named(&self, media_type: &str) -> f32 {
        let weight = |range: &&str| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().filter(|name| name.eq_ignore_ascii_case(media_type))?;
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            Some(weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
        };
        self.0.iter().filter_map(weight).fold(0.0, f32::max)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_media_type_counts_by_its_weight_and_only_if_it_is_named() {
        let cases = [
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", (0.3, 0.5)),
            ("text/plain, application/openmetrics-text; q=0.1", (1.0, 0.1)),
            ("*/*", (0.0, 0.0)),
            ("Text/Plain ; Q=0.25", (0.25, 0.0)),
            ("text/plain;q=nonsense", (0.0, 0.0)),
            ("", (0.0, 0.0)),
        ];
        for (value, (plain, open)) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            let accepted = AcceptedTypes::of(&headers);
            let named = (accepted.named("text/plain"), accepted.named("application/openmetrics-text"));
            assert_eq!(named, (plain, open), "{value}");
        }
    }
}
