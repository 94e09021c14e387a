"""The deployment to AWS: templates built as data from what the application declares, and the zips beside them."""
