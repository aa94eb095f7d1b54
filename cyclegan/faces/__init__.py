"""Finding faces (`detect`) and cutting them out and putting them back (`align`)."""
