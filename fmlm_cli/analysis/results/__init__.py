"""What commands measure, as types: results.json is made from them, and reports are."""
