"""Pages of what ``visavis evaluate`` measured."""
