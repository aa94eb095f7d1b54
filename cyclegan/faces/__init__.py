"""Finding faces (`detect`), following them (`track`), and cutting them out and putting them back (`align`)."""
