"""Steps where no namespace can be made: a ladder of weaker isolations, each said and proved by doing."""
